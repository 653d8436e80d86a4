//! The two signals that end the server, as something to wait for.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// SIGINT and SIGTERM, blocked in this thread and in all that it starts.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Call it before the first thread is started: threads inherit what is blocked.
    pub(crate) fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for one of the signals; `false` if none came in time.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up, or the last millisecond would be waited for in circles.
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

/// Ends the server when the thread that holds it ends, for whatever reason.
#[derive(Debug)]
pub(crate) struct EndsTheServer;

impl Drop for EndsTheServer {
    fn drop(&mut self) {
        // The process has the right to signal itself.
        let _ = kill(Pid::this(), Signal::SIGTERM);
    }
}
