//! Which signals are held back while a thread waits.

use std::fmt;
use std::io;

use super::sys;

/// The signals that are blocked: held back until they are no longer in the mask.
///
/// For [`Epoll::wait_masked`](super::epoll::Epoll::wait_masked), which puts it in place of the thread's own
/// for as long as it waits, and so lets a signal in *only* there: no handler runs between the check of a flag
/// and the wait. Signals are the numbers of signal(7).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use epoll_acceptor::SignalMask;
///
/// const SIGUSR1: i32 = 10;
/// let outside = SignalMask::of_thread()?.block(SIGUSR1)?;
/// let during_the_wait = outside.unblock(SIGUSR1)?;
/// assert!(outside.contains(SIGUSR1) && !during_the_wait.contains(SIGUSR1));
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [sigsetops(3)](https://man7.org/linux/man-pages/man3/sigsetops.3.html)
#[derive(Clone, Copy)]
pub struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Blocks nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(sys::sigset_empty())
    }

    /// Blocks everything that can be blocked.
    #[must_use]
    pub fn full() -> Self {
        Self(sys::sigset_full())
    }

    /// What the calling thread blocks now.
    ///
    /// # Errors
    ///
    /// None is documented by pthread_sigmask(3).
    pub fn of_thread() -> io::Result<Self> {
        Ok(Self(sys::thread_sigmask(None)?))
    }

    /// Puts this mask in place of the calling thread's own, and returns that.
    ///
    /// Threads that are spawned afterwards inherit it, and so do programs that are executed.
    ///
    /// # Errors
    ///
    /// None is documented by pthread_sigmask(3).
    #[doc(alias = "pthread_sigmask")]
    pub fn set_for_thread(&self) -> io::Result<Self> {
        Ok(Self(sys::thread_sigmask(Some(&self.0))?))
    }

    /// The same mask, with this signal blocked.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the number is no signal.
    #[doc(alias = "sigaddset")]
    pub fn block(mut self, signal: i32) -> io::Result<Self> {
        sys::sigset_put(&mut self.0, signal, true)?;
        Ok(self)
    }

    /// The same mask, with this signal let through.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the number is no signal.
    #[doc(alias = "sigdelset")]
    pub fn unblock(mut self, signal: i32) -> io::Result<Self> {
        sys::sigset_put(&mut self.0, signal, false)?;
        Ok(self)
    }

    /// Is this signal blocked? `false` if the number is not a signal.
    #[doc(alias = "sigismember")]
    #[must_use]
    pub fn contains(&self, signal: i32) -> bool {
        sys::sigset_has(&self.0, signal)
    }

    pub(crate) const fn as_raw(&self) -> &libc::sigset_t {
        &self.0
    }
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocked = (1..=SIGNAL_MAX).filter(|signal| self.contains(*signal)).map(Name);
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

/// The last real-time signal.
const SIGNAL_MAX: i32 = 64;

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
