//! Stops the server for the moment in which the crowd arrives, so that one wake-up finds them all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::see::{Doing, Thread};

/// A stopped process stops within this, or something is wrong.
const BOUND: Duration = Duration::from_secs(2);

/// Stopped processes, which go on when this is dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    pids: Vec<Pid>,
}

/// Keeps a signal that would end this process from leaving the server stopped.
#[derive(Debug)]
pub(crate) struct Guard {
    may_end: Arc<AtomicBool>,
    pending: Arc<AtomicBool>,
}

impl Guard {
    pub(crate) fn new() -> io::Result<Self> {
        let guard = Self { may_end: Arc::new(AtomicBool::new(true)), pending: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&guard.may_end))?;
            signal_hook::flag::register(signal, Arc::clone(&guard.pending))?;
        }
        Ok(guard)
    }

    /// Runs something while these processes are stopped.
    pub(crate) fn frozen<T>(&self, pids: &[i32], run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.may_end.store(false, Ordering::SeqCst);
        let result = Frozen::stop(pids).and_then(|frozen| {
            let result = run();
            drop(frozen);
            result
        });
        self.may_end.store(true, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            return Err(io::Error::other("ended by a signal; the server goes on"));
        }
        result
    }
}

impl Frozen {
    fn stop(pids: &[i32]) -> io::Result<Self> {
        let mut frozen = Self { pids: Vec::new() };
        for pid in pids {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).map_err(|error| {
                io::Error::other(format!("--freeze: process {pid} may not be stopped: {error}; try as root"))
            })?;
            frozen.pids.push(Pid::from_raw(*pid));
        }
        let began = Instant::now();
        let is_stopped = |pid: &i32| Thread::of(*pid).iter().all(|thread| thread.doing == Doing::Stopped);
        while !pids.iter().all(is_stopped) {
            if began.elapsed() > BOUND {
                return Err(io::Error::other("--freeze: the server did not stop"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}
