//! The epoll instance: who is watched, and waiting for them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::busy_poll::{self, BusyPoll};
use super::control::{EpollCtlError, Tried};
use super::events::Events;
use super::interest::{ExclusiveInterest, Interest};
use super::registration::{AddError, Registration};
use super::signal::SignalMask;
use super::sys;
use super::token::Token;
use super::wait;
use crate::drain::errno::Errno;

/// An epoll instance. Its descriptor is close-on-exec.
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
/// An epoll is itself a descriptor that can be polled: it is readable while something that it watches is
/// ready. So another epoll, or a runtime, can host it ([`AsFd`], [`AsRawFd`]).
///
/// ## A registration can outlive its descriptor
///
/// The kernel registers the *open file* behind a descriptor. While any duplicate of it is open, in this or in
/// a forked process, closing the descriptor removes nothing: the events go on, and its number can no longer
/// name the registration to delete it. [`register`](Self::register) deletes before it closes; after a bare
/// [`add`](Self::add), [`delete`](Self::delete) is yours to call.
///
/// ## An outer epoll that watches edges
///
/// It is reported again only when something *becomes* ready inside. Who is told by such an edge must look once more
/// before it sleeps: [the trap of an edge-triggered host](crate::hosted#the-trap-of-an-edge-triggered-host).
///
/// # References
///
/// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html)
#[derive(Debug)]
pub struct Epoll {
    // Shared with the registrations, which need it to delete themselves.
    fd: Arc<OwnedFd>,
    /// Which epoll it is; duplicates are the same.
    id: u64,
}

/// The number of the next epoll. No event is of epoll 0.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Epoll {
    /// `epoll_create1(EPOLL_CLOEXEC)`—Makes an epoll instance.
    ///
    /// # Errors
    ///
    /// Out of descriptors (EMFILE, ENFILE) or of memory (ENOMEM).
    ///
    /// # References
    ///
    /// [epoll_create(2)](https://man7.org/linux/man-pages/man2/epoll_create.2.html)
    #[doc(alias = "epoll_create1")]
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: Arc::new(sys::epoll_create1()?), id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// `epoll_ctl(EPOLL_CTL_ADD)`—Watches a descriptor. What is ready already is reported at once.
    ///
    /// # Errors
    ///
    /// Refused before the kernel: [`Interest::EXCLUSIVE`], which has [`add_exclusive`](Self::add_exclusive).
    /// Refused by it: what is registered already, what cannot be polled, too much nesting, too many
    /// registrations; the error says which, and what to do.
    ///
    /// # References
    ///
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html)
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

    /// `epoll_ctl(EPOLL_CTL_ADD, EPOLLEXCLUSIVE)`—Watches a descriptor that other epolls watch too, without
    /// all of them being woken.
    ///
    /// The epoll that registered first and whose owner sleeps is woken first, and then the others are not; so
    /// it gets everything while it keeps up. An exclusive registration cannot be modified: delete it and add
    /// it again.
    ///
    /// ## The one who was woken must act
    ///
    /// It alone holds the readiness: if it neither accepts nor is reported to again, nobody else learns of
    /// the connection until the next one arrives. Deleting its registration tells nobody either.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add). An epoll cannot be watched exclusively.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::net::TcpListener;
    /// use epoll_acceptor::{Epoll, ExclusiveInterest, Token};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// for epoll in [Epoll::new()?, Epoll::new()?] {
    ///     epoll.add_exclusive(&listener, Token(0), ExclusiveInterest::IN)?; // in a thread of its own
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # References
    ///
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), `EPOLLEXCLUSIVE`; K15, K25, K26 and K71 of
    /// [the kernel's rules](crate::guide::kernel).
    #[doc(alias = "EPOLLEXCLUSIVE")]
    pub fn add_exclusive(
        &self,
        fd: &(impl AsFd + ?Sized),
        token: Token,
        interest: ExclusiveInterest,
    ) -> Result<(), EpollCtlError> {
        add_exclusive(self.as_fd(), fd.as_fd(), token, interest)
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`—Changes token and interest of a descriptor that is watched.
    ///
    /// Also tells the kernel to look again: what is ready now is reported once more, edge-triggered or not.
    ///
    /// # Errors
    ///
    /// Refused before the kernel: [`Interest::EXCLUSIVE`]. Refused by it: what is not registered, or is
    /// registered exclusively.
    ///
    /// # References
    ///
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html); K10 of [the kernel's rules](crate::guide::kernel).
    #[doc(alias = "EPOLL_CTL_MOD")]
    pub fn modify(
        &self,
        fd: &(impl AsFd + ?Sized),
        token: Token,
        interest: Interest,
    ) -> Result<(), EpollCtlError> {
        modify(self.as_fd(), fd.as_fd(), token, interest)
    }

    /// `epoll_ctl(EPOLL_CTL_DEL)`—Watches a descriptor no more.
    ///
    /// Events of it that a buffer already holds stay there.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the descriptor is not registered here; `EBADF` if one of the two is closed.
    ///
    /// # References
    ///
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html); K13 of [the kernel's rules](crate::guide::kernel).
    #[doc(alias = "EPOLL_CTL_DEL")]
    pub fn delete(&self, fd: &(impl AsFd + ?Sized)) -> Result<(), EpollCtlError> {
        sys::epoll_ctl_del(self.as_fd(), fd.as_fd())
            .map_err(|errno| EpollCtlError::kernel(Tried::Delete, errno))
    }

    /// Watches a descriptor for as long as the returned registration lives.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add); the error gives the descriptor back.
    pub fn register<F: AsFd>(
        &self,
        fd: F,
        token: Token,
        interest: Interest,
    ) -> Result<Registration<F>, AddError<F>> {
        Registration::new(&self.fd, fd, |epoll, fd| add(epoll, fd, token, interest))
    }

    /// As [`register`](Self::register), exclusively.
    ///
    /// # Errors
    ///
    /// As for [`add_exclusive`](Self::add_exclusive); the error gives the descriptor back.
    pub fn register_exclusive<F: AsFd>(
        &self,
        fd: F,
        token: Token,
        interest: ExclusiveInterest,
    ) -> Result<Registration<F>, AddError<F>> {
        Registration::new(&self.fd, fd, |epoll, fd| add_exclusive(epoll, fd, token, interest))
    }

    /// `epoll_wait(…)` or `epoll_pwait2(…)`—Waits until something is ready, the time is over, or a signal
    /// comes.
    ///
    /// If the buffer still holds events that nobody has read, returns at once with those and makes no system
    /// call: see [`Events`]. So a loop that reads none of them never sleeps.
    ///
    /// `None` waits for ever, zero does not wait at all. Otherwise the resolution is a nanosecond, plus the
    /// slack of the thread's timer (prctl(2), `PR_SET_TIMERSLACK`), and no wait ends early. A time beyond
    /// what the kernel can count, such as [`Duration::MAX`], is for ever.
    ///
    /// ## Kernels before 5.11
    ///
    /// They count milliseconds: the time is rounded up to the next, and ends after 24.8 days at the most.
    ///
    /// ## Signals are no error
    ///
    /// A wait that a signal ended returns no events and [says so](WaitResult::interrupted). Stopping and
    /// continuing the process does that too (a debugger, `Ctrl-Z`), without any handler. What is left of the
    /// timeout is the caller's to reckon.
    ///
    /// ## Zero is advisory where threads share an epoll
    ///
    /// Kernels from 5.11 to mid 2026 may return nothing from a wait of zero while another thread waits on
    /// the same epoll, although something is ready.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) while the buffer holds unread events of another epoll. Otherwise none
    /// that a correct program meets.
    ///
    /// # References
    ///
    /// [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html)
    #[doc(alias = "epoll_wait")]
    #[doc(alias = "epoll_pwait2")]
    #[inline]
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<WaitResult> {
        self.wait_with(events, timeout, None)
    }

    /// `epoll_pwait(…)` or `epoll_pwait2(…)`—As [`wait`](Self::wait), with the thread's signal mask replaced
    /// while it waits.
    ///
    /// The kernel swaps the masks and goes to sleep in one step, so that a signal which is blocked everywhere
    /// else cannot slip in before. An event that is ready wins over a signal that is pending, and a wait of
    /// zero lets none in.
    ///
    /// ## Unread events come first
    ///
    /// While the buffer holds unread events no system call is made, and no signal let in.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) while the buffer holds unread events of another epoll. Otherwise none
    /// that a correct program meets.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use epoll_acceptor::{Epoll, Events, SignalMask};
    ///
    /// const SIGTERM: i32 = 15;
    /// let everywhere = SignalMask::of_thread()?.block(SIGTERM)?;
    /// everywhere.set_for_thread()?;
    /// let during_the_wait = everywhere.unblock(SIGTERM)?;
    ///
    /// let epoll = Epoll::new()?;
    /// let mut events = Events::with_capacity(8)?;
    /// // Here, and nowhere else, a handler for SIGTERM may run.
    /// let waited = epoll.wait_masked(&mut events, Some(Duration::from_millis(1)), &during_the_wait)?;
    /// assert!(!waited.interrupted());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # References
    ///
    /// [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html); K18 of [the kernel's rules](crate::guide::kernel).
    #[doc(alias = "epoll_pwait")]
    pub fn wait_masked(
        &self,
        events: &mut Events,
        timeout: Option<Duration>,
        mask: &SignalMask,
    ) -> io::Result<WaitResult> {
        self.wait_with(events, timeout, Some(mask.as_raw()))
    }

    /// `ioctl(EPIOCGPARAMS)`—The busy-poll parameters in force.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) on kernels before 6.9.
    ///
    /// # References
    ///
    /// [ioctl_eventpoll(2)](https://man7.org/linux/man-pages/man2/ioctl_eventpoll.2.html)
    #[doc(alias = "EPIOCGPARAMS")]
    pub fn busy_poll(&self) -> io::Result<BusyPoll> {
        busy_poll::read(self.as_fd())
    }

    /// `ioctl(EPIOCSPARAMS)`—Sets the busy-poll parameters.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) on kernels before 6.9;
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) for a budget above 64 without `CAP_NET_ADMIN`;
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a time above `i32::MAX` microseconds.
    ///
    /// # References
    ///
    /// [ioctl_eventpoll(2)](https://man7.org/linux/man-pages/man2/ioctl_eventpoll.2.html)
    #[doc(alias = "EPIOCSPARAMS")]
    pub fn set_busy_poll(&self, parameters: BusyPoll) -> io::Result<()> {
        busy_poll::write(self.as_fd(), parameters)
    }

    /// Duplicates the descriptor: the same epoll, the same registrations. The duplicate is close-on-exec.
    ///
    /// # Errors
    ///
    /// Out of descriptors (EMFILE).
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
            return self.hand_out(events);
        }
        match events.refill(self.id, |buffer| wait::wait(self.as_fd(), buffer, timeout, mask)) {
            Ok(count) => Ok(WaitResult { count, interrupted: false }),
            Err(errno) => interrupted(errno),
        }
    }

    /// Instead of a wait: what is unread.
    #[cold]
    fn hand_out(&self, events: &Events) -> io::Result<WaitResult> {
        if events.are_foreign_to(self.id) {
            let sentence = "the buffer holds unread events of another epoll: give each epoll one of its own";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
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

// For runtimes that host a descriptor by number and own what has it, as tokio's `AsyncFd` does.
impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// How a wait ended; made by [`Epoll::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitResult {
    count: usize,
    interrupted: bool,
}

impl WaitResult {
    /// How many events can be read from the buffer now.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Did a signal end the wait? Then there are no events, and the time may not be over.
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
    not_exclusive(Tried::Add, interest)?;
    sys::epoll_ctl_add(epoll, fd, interest.bits(), token.0)
        .map_err(|errno| EpollCtlError::kernel(Tried::Add, errno))
}

fn add_exclusive(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: ExclusiveInterest,
) -> Result<(), EpollCtlError> {
    let mask = interest.interest() | Interest::EXCLUSIVE;
    sys::epoll_ctl_add(epoll, fd, mask.bits(), token.0)
        .map_err(|errno| EpollCtlError::kernel(Tried::AddExclusive, errno))
}

pub(crate) fn modify(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: Interest,
) -> Result<(), EpollCtlError> {
    not_exclusive(Tried::Modify, interest)?;
    sys::epoll_ctl_mod(epoll, fd, interest.bits(), token.0)
        .map_err(|errno| EpollCtlError::kernel(Tried::Modify, errno))
}

fn not_exclusive(tried: Tried, interest: Interest) -> Result<(), EpollCtlError> {
    if interest.contains(Interest::EXCLUSIVE) { Err(EpollCtlError::exclusive_flag(tried)) } else { Ok(()) }
}
