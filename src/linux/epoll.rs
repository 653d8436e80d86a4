//! The epoll instance: registrations and waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::epoll_ctl_error::{EpollCtlError, Operation};
use super::events::Events;
use super::interest::{ExclusiveInterest, Interest};
use super::registration::{AddError, Registration};
#[cfg(feature = "signals")]
use super::signal::SignalMask;
use super::sys;
use super::token::Token;
use super::wait;
use crate::drain::errno::Errno;

/// An epoll instance. Its descriptor is close-on-exec.
///
/// An epoll is itself pollable: it is readable while a registered descriptor is ready. Another epoll or a runtime can
/// therefore poll it ([`AsFd`], [`AsRawFd`]). See [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::{Epoll, Events, Interest, Token};
///
/// let epoll = Epoll::new()?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// epoll.add(&listener, Token(7), Interest::IN)?;
///
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let mut events = Events::with_capacity(64)?;
/// epoll.wait(&mut events, None)?;
/// let event = events.next().unwrap();
/// assert_eq!(event.token(), Token(7));
/// assert!(event.interest().contains(Interest::IN));
/// # Ok(())
/// # }
/// ```
///
/// ## A registration can outlive its descriptor
///
/// The kernel registers the *open file description*. While a duplicate of the descriptor is open, in this process
/// or in a forked one, `close` does not delete the registration: events continue, and the closed number can no
/// longer name the registration. [`register`](Self::register) deletes before it closes; after a bare
/// [`add`](Self::add), call [`delete`](Self::delete) before `close`.
///
/// ## Edge-triggered outer epoll
///
/// An outer epoll that registered this one with `EPOLLET` reports it only when an inner descriptor *becomes* ready.
/// After such an event, wait on the inner epoll until it returns no event:
/// [`Hosted`](crate::Hosted#edge-triggered-event-loops).
#[derive(Debug)]
pub struct Epoll {
    // Shared with the registrations, which delete themselves through it.
    fd: Arc<OwnedFd>,
    /// Identifies the epoll instance; duplicates have the same id.
    id: u64,
}

/// The id of the next epoll. Id 0 marks a buffer that no epoll has filled yet.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Epoll {
    /// `epoll_create1(EPOLL_CLOEXEC)`—Creates an epoll instance.
    ///
    /// See [epoll_create(2)](https://man7.org/linux/man-pages/man2/epoll_create.2.html).
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` if no descriptor is free, `ENOMEM`.
    #[doc(alias = "epoll_create1")]
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: Arc::new(sys::epoll_create1()?), id: NEXT_ID.fetch_add(1, Ordering::Relaxed) })
    }

    /// `epoll_ctl(EPOLL_CTL_ADD)`—Registers a descriptor.
    ///
    /// A descriptor that is already ready is reported by the next wait. See
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html).
    ///
    /// # Errors
    ///
    /// This function rejects [`Interest::EXCLUSIVE`]: use [`add_exclusive`](Self::add_exclusive). The kernel rejects a
    /// descriptor that is already registered or does not support epoll, too deep nesting, and registrations above
    /// `max_user_watches`.
    #[doc(alias = "epoll_ctl")]
    #[doc(alias = "EPOLL_CTL_ADD")]
    pub fn add(
        &self,
        fd: &(impl AsFd + ?Sized),
        token: Token,
        interest: Interest,
    ) -> Result<(), EpollCtlError> {
        add(self.as_fd(), fd.as_fd(), token, interest)
    }

    /// `epoll_ctl(EPOLL_CTL_ADD, EPOLLEXCLUSIVE)`—Registers a descriptor that other epolls have registered too,
    /// without a thundering herd.
    ///
    /// The kernel wakes the first registered epoll on which a thread blocks, and no further exclusive one. Load is
    /// therefore uneven: the first epoll gets every connection while it keeps up. An exclusive registration cannot be
    /// modified: delete it and add it again. See
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), `EPOLLEXCLUSIVE`; K15, K25, K26 and K71
    /// of [the kernel's rules](crate::guide::kernel).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::net::TcpListener;
    /// use epoll_acceptor::epoll::ExclusiveInterest;
    /// use epoll_acceptor::{Epoll, Token};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// for epoll in [Epoll::new()?, Epoll::new()?] {
    ///     epoll.add_exclusive(&listener, Token(0), ExclusiveInterest::IN)?; // in a thread of its own
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ## Lost wakeup
    ///
    /// Only the woken epoll learns of the connection. If its owner does not accept until `EAGAIN`, the other epolls
    /// stay blocked until the next connection arrives. Deleting the woken registration does not wake them either.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add), and `EINVAL` if `fd` is an epoll.
    #[doc(alias = "EPOLLEXCLUSIVE")]
    pub fn add_exclusive(
        &self,
        fd: &(impl AsFd + ?Sized),
        token: Token,
        interest: ExclusiveInterest,
    ) -> Result<(), EpollCtlError> {
        add_exclusive(self.as_fd(), fd.as_fd(), token, interest)
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`—Changes the token and the interest of a registered descriptor.
    ///
    /// The kernel checks readiness again: a descriptor that is ready now is reported once more, even an edge-triggered
    /// one. See [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html); K10 of [the kernel's
    /// rules](crate::guide::kernel).
    ///
    /// # Errors
    ///
    /// This function rejects [`Interest::EXCLUSIVE`]. The kernel rejects a descriptor that is not registered
    /// (`ENOENT`) or registered exclusively (`EINVAL`).
    #[doc(alias = "EPOLL_CTL_MOD")]
    pub fn modify(
        &self,
        fd: &(impl AsFd + ?Sized),
        token: Token,
        interest: Interest,
    ) -> Result<(), EpollCtlError> {
        modify(self.as_fd(), fd.as_fd(), token, interest)
    }

    /// `epoll_ctl(EPOLL_CTL_DEL)`—Deletes the registration of a descriptor.
    ///
    /// Its events in an [`Events`] buffer stay there. See
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html); K13 of [the kernel's
    /// rules](crate::guide::kernel).
    ///
    /// # Errors
    ///
    /// `ENOENT` if the descriptor is not registered with this epoll; `EBADF` if one of the two is closed.
    #[doc(alias = "EPOLL_CTL_DEL")]
    pub fn delete(&self, fd: &(impl AsFd + ?Sized)) -> Result<(), EpollCtlError> {
        sys::epoll_ctl_del(self.as_fd(), fd.as_fd())
            .map_err(|errno| EpollCtlError::kernel(Operation::Delete, errno))
    }

    /// Registers a descriptor until the returned [`Registration`] is dropped.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add); [`AddError::into_inner`] returns the descriptor.
    pub fn register<F: AsFd>(
        &self,
        fd: F,
        token: Token,
        interest: Interest,
    ) -> Result<Registration<F>, AddError<F>> {
        Registration::new(&self.fd, fd, |epoll, fd| add(epoll, fd, token, interest))
    }

    /// Registers a descriptor with `EPOLLEXCLUSIVE` until the returned [`Registration`] is dropped.
    ///
    /// # Errors
    ///
    /// As for [`add_exclusive`](Self::add_exclusive); [`AddError::into_inner`] returns the descriptor.
    pub fn register_exclusive<F: AsFd>(
        &self,
        fd: F,
        token: Token,
        interest: ExclusiveInterest,
    ) -> Result<Registration<F>, AddError<F>> {
        Registration::new(&self.fd, fd, |epoll, fd| add_exclusive(epoll, fd, token, interest))
    }

    /// `epoll_wait(…)` or `epoll_pwait2(…)`—Waits until a descriptor is ready, the timeout expires, or a signal
    /// arrives.
    ///
    /// If the buffer holds unread events, the call returns them at once and makes no system call: see [`Events`]. A
    /// loop that does not read its events therefore never blocks.
    ///
    /// `None` waits without a timeout; zero does not block. The resolution is one nanosecond plus the timer slack of
    /// the thread (prctl(2), `PR_SET_TIMERSLACK`). No timeout expires early. A timeout beyond the kernel's range, such
    /// as [`Duration::MAX`], never expires. See
    /// [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html).
    ///
    /// ## Kernels before 5.11
    ///
    /// Timeouts are rounded up to milliseconds and expire after at most 24.8 days.
    ///
    /// ## Signals
    ///
    /// A wait that a signal interrupts returns no events, and [`WaitResult::interrupted`] is `true`. `SIGSTOP` followed
    /// by `SIGCONT` (a debugger, Ctrl-Z) interrupts the wait too, without any handler. The caller computes the
    /// remaining timeout.
    ///
    /// ## Zero timeout on a shared epoll
    ///
    /// On kernels from 5.11 to mid 2026, a wait with a zero timeout may return no events although a descriptor is
    /// ready, while another thread waits on the same epoll.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the buffer holds unread events of another epoll.
    #[doc(alias = "epoll_wait")]
    #[doc(alias = "epoll_pwait2")]
    #[inline]
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<WaitResult> {
        self.wait_with(events, timeout, None)
    }

    /// `epoll_pwait(…)` or `epoll_pwait2(…)`—Waits as [`wait`](Self::wait) does, with `mask` as the thread's signal
    /// mask.
    ///
    /// The kernel replaces the mask and blocks atomically, so a signal that is blocked outside the wait cannot be
    /// delivered between a check and the wait. A ready descriptor takes precedence over a pending signal. A zero
    /// timeout, or unread events in the buffer, delivers no signal. See
    /// [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html); K18 of [the kernel's
    /// rules](crate::guide::kernel).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use epoll_acceptor::epoll::SignalMask;
    /// use epoll_acceptor::{Epoll, Events};
    ///
    /// const SIGTERM: i32 = 15;
    /// let blocked = SignalMask::of_thread()?.block(SIGTERM)?;
    /// blocked.set_for_thread()?;
    /// let during_wait = blocked.unblock(SIGTERM)?;
    ///
    /// let epoll = Epoll::new()?;
    /// let mut events = Events::with_capacity(8)?;
    /// // A handler for SIGTERM can run only inside this call.
    /// let result = epoll.wait_masked(&mut events, Some(Duration::from_millis(1)), &during_wait)?;
    /// assert!(!result.interrupted());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    #[doc(alias = "epoll_pwait")]
    #[cfg(feature = "signals")]
    #[cfg_attr(docsrs, doc(cfg(feature = "signals")))]
    pub fn wait_masked(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
        mask: &SignalMask,
    ) -> io::Result<WaitResult> {
        self.wait_with(events, timeout, Some(mask.as_raw()))
    }

    /// Duplicates the descriptor. The duplicate is close-on-exec and shares the registrations.
    ///
    /// # Errors
    ///
    /// `EMFILE` if no descriptor is free.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: Arc::new(self.fd.try_clone()?), id: self.id })
    }

    #[inline]
    fn wait_with(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
        mask: Option<&libc::sigset_t>,
    ) -> io::Result<WaitResult> {
        if !events.is_empty() {
            return self.unread(events);
        }
        match events.refill(self.id, |buffer| wait::wait(self.as_fd(), buffer, timeout, mask)) {
            Ok(count) => Ok(WaitResult { count, interrupted: false }),
            Err(errno) => interrupted(errno),
        }
    }

    /// Returns the unread events in place of a wait.
    #[cold]
    fn unread(&self, events: &Events) -> io::Result<WaitResult> {
        if events.are_of_another_epoll(self.id) {
            let message = "the buffer holds unread events of another epoll: use one buffer per epoll";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(WaitResult { count: events.len(), interrupted: false })
    }
}

#[cold]
fn interrupted(errno: Errno) -> io::Result<WaitResult> {
    match errno.number() {
        libc::EINTR => Ok(WaitResult { count: 0, interrupted: true }),
        _ => Err(errno.into()),
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// tokio's `AsyncFd` takes ownership of a type that is `AsRawFd`.
impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The result of [`Epoll::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitResult {
    count: usize,
    interrupted: bool,
}

impl WaitResult {
    /// Returns the number of events in the buffer.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns `true` if a signal interrupted the wait: there are no events, and the timeout may not have expired.
    #[must_use]
    pub const fn interrupted(&self) -> bool {
        self.interrupted
    }
}

pub(crate) fn add(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: Interest,
) -> Result<(), EpollCtlError> {
    reject_exclusive(Operation::Add, interest)?;
    sys::epoll_ctl_add(epoll, fd, interest.bits(), token.0)
        .map_err(|errno| EpollCtlError::kernel(Operation::Add, errno))
}

fn add_exclusive(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: ExclusiveInterest,
) -> Result<(), EpollCtlError> {
    let mask = interest.interest() | Interest::EXCLUSIVE;
    sys::epoll_ctl_add(epoll, fd, mask.bits(), token.0)
        .map_err(|errno| EpollCtlError::kernel(Operation::AddExclusive, errno))
}

pub(crate) fn modify(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: Interest,
) -> Result<(), EpollCtlError> {
    reject_exclusive(Operation::Modify, interest)?;
    sys::epoll_ctl_mod(epoll, fd, interest.bits(), token.0)
        .map_err(|errno| EpollCtlError::kernel(Operation::Modify, errno))
}

fn reject_exclusive(operation: Operation, interest: Interest) -> Result<(), EpollCtlError> {
    if interest.contains(Interest::EXCLUSIVE) {
        Err(EpollCtlError::exclusive_flag(operation))
    } else {
        Ok(())
    }
}
