//! Waiting for the signals that end the server.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// SIGINT and SIGTERM, blocked in this thread and in every thread that it starts.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Call it before the first thread is started: threads inherit the signal mask.
    pub(crate) fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for one of the signals. Returns `false` if none arrived before the timeout.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up: otherwise the last millisecond would be a busy loop.
            let millis =
                left.map(|left| PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX));
            let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, millis.unwrap_or(PollTimeout::NONE)) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Ends the server when the thread that holds it ends, also by a panic.
#[derive(Debug)]
pub(crate) struct EndServerOnDrop;

impl Drop for EndServerOnDrop {
    fn drop(&mut self) {
        // A process may always signal itself.
        let _ = kill(Pid::this(), Signal::SIGTERM);
    }
}
