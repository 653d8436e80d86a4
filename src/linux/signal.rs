//! The signal mask of a wait.

use std::fmt;
use std::io;

use super::sys::sigset;

/// A set of blocked signals. A blocked signal stays pending until it is unblocked.
///
/// [`Epoll::wait_masked`](super::epoll::Epoll::wait_masked) installs the mask for the duration of the wait. A signal
/// that is blocked outside the wait and unblocked in the mask is delivered *only* during the wait: no handler runs
/// between the check of a flag and the wait. Signals are the numbers of signal(7). See
/// [sigsetops(3)](https://man7.org/linux/man-pages/man3/sigsetops.3.html).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use epoll_acceptor::epoll::SignalMask;
///
/// const SIGUSR1: i32 = 10;
/// let blocked = SignalMask::of_thread()?.block(SIGUSR1)?;
/// let during_wait = blocked.unblock(SIGUSR1)?;
/// assert!(blocked.contains(SIGUSR1) && !during_wait.contains(SIGUSR1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Returns a mask that blocks no signal.
    #[must_use]
    pub fn empty() -> Self {
        Self(sigset::empty())
    }

    /// Returns a mask that blocks all signals that can be blocked.
    #[must_use]
    pub fn full() -> Self {
        Self(sigset::full())
    }

    /// Returns the mask of the calling thread.
    ///
    /// # Errors
    ///
    /// pthread_sigmask(3) documents none for this call.
    pub fn of_thread() -> io::Result<Self> {
        Ok(Self(sigset::thread_sigmask(None)?))
    }

    /// Sets the mask of the calling thread and returns the previous one.
    ///
    /// Threads spawned afterwards and executed programs inherit the mask.
    ///
    /// # Errors
    ///
    /// pthread_sigmask(3) documents none for this call.
    #[doc(alias = "pthread_sigmask")]
    pub fn set_for_thread(&self) -> io::Result<Self> {
        Ok(Self(sigset::thread_sigmask(Some(&self.0))?))
    }

    /// Adds a signal to the mask.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the number is not a signal.
    #[doc(alias = "sigaddset")]
    pub fn block(mut self, signal: i32) -> io::Result<Self> {
        sigset::put(&mut self.0, signal, true)?;
        Ok(self)
    }

    /// Removes a signal from the mask.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the number is not a signal.
    #[doc(alias = "sigdelset")]
    pub fn unblock(mut self, signal: i32) -> io::Result<Self> {
        sigset::put(&mut self.0, signal, false)?;
        Ok(self)
    }

    /// Returns `true` if the mask blocks this signal, `false` if the number is not a signal.
    #[doc(alias = "sigismember")]
    #[must_use]
    pub fn contains(&self, signal: i32) -> bool {
        sigset::has(&self.0, signal)
    }

    pub(crate) const fn as_raw(&self) -> &libc::sigset_t {
        &self.0
    }
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocked = (1..=libc::SIGRTMAX()).filter(|signal| self.contains(*signal)).map(Name);
        f.write_str("SignalMask")?;
        f.debug_set().entries(blocked).finish()
    }
}

struct Name(i32);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(signal, _)| *signal == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

const NAMES: &[(i32, &str)] = &[
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
    (libc::SIGURG, "SIGURG"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGWINCH, "SIGWINCH"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSYS, "SIGSYS"),
];
