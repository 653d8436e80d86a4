//! Stops the server (SIGSTOP) while the clients connect, so that one wakeup reports all of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::guard::Guardian;
use crate::probe::{Activity, Thread};

/// The time limit for the processes to stop.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Stopped processes. Dropping this continues them.
#[derive(Debug)]
pub(crate) struct Frozen {
    pids: Vec<Pid>,
}

/// Defers signals that would terminate this process while the server is stopped.
#[derive(Debug)]
pub(crate) struct SignalGuard {
    may_terminate: Arc<AtomicBool>,
    pending: Arc<AtomicBool>,
}

impl SignalGuard {
    pub(crate) fn new() -> io::Result<Self> {
        let guard = Self { may_terminate: Arc::new(AtomicBool::new(true)), pending: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&guard.may_terminate))?;
            signal_hook::flag::register(signal, Arc::clone(&guard.pending))?;
        }
        Ok(guard)
    }

    /// Calls `run` while these processes are stopped.
    pub(crate) fn run_stopped<T>(&self, pids: &[i32], run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.may_terminate.store(false, Ordering::SeqCst);
        // The guardian continues them if a signal that cannot be deferred (SIGKILL) ends this process.
        let result = Guardian::start(pids).and_then(|guardian| {
            let stopped = Frozen::stop(pids)?;
            let result = run();
            drop((stopped, guardian));
            result
        });
        self.may_terminate.store(true, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            return Err(io::Error::other("terminated by a signal; the server was continued"));
        }
        result
    }
}

impl Frozen {
    fn stop(pids: &[i32]) -> io::Result<Self> {
        let mut run_stopped = Self { pids: Vec::new() };
        for pid in pids {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).map_err(|error| {
                io::Error::other(format!("--freeze: cannot stop process {pid}: {error}; run this as root"))
            })?;
            run_stopped.pids.push(Pid::from_raw(*pid));
        }
        let began = Instant::now();
        let is_stopped =
            |pid: &i32| Thread::of(*pid).iter().all(|thread| thread.activity == Activity::Stopped);
        while !pids.iter().all(is_stopped) {
            if began.elapsed() > TIMEOUT {
                return Err(io::Error::other("--freeze: the server did not stop within 2 seconds"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(run_stopped)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}
