//! Waking an epoll from another thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::epoll;
use super::interest::Interest;
use super::registration::Registration;
use super::sys;
use super::token::Token;

/// A handle that wakes an epoll from any thread: the wait returns an event with the token of the waker.
///
/// An eventfd, registered edge-triggered and never read: each `write` is an edge, so handling the event needs no
/// further system call. All wakes before a wait coalesce into one event. Dropping the waker deletes its registration,
/// except in a forked child. Share it in an [`Arc`] to wake from several threads. See
/// [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use epoll_acceptor::epoll::Waker;
/// use epoll_acceptor::{Epoll, Events, Token};
///
/// let epoll = Epoll::new()?;
/// let waker = Waker::new(&epoll, Token(0))?;
/// let thread = std::thread::spawn(move || waker.wake().map(|()| waker));
///
/// let mut events = Events::with_capacity(8)?;
/// epoll.wait(&mut events, None)?;
/// assert_eq!(events.next().unwrap().token(), Token(0));
/// let waker = thread.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
///
/// ## Stale events
///
/// An [`Events`](super::events::Events) buffer that was filled before the drop may still hold the waker's event.
#[doc(alias = "eventfd")]
#[derive(Debug)]
pub struct Waker {
    eventfd: Registration<OwnedFd>,
}

impl Waker {
    /// Creates a waker and registers it with `epoll`, which may be an [`Epoll`](super::epoll::Epoll) or any other epoll
    /// descriptor.
    ///
    /// The waker keeps a duplicate of `epoll` to delete its registration.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` if no descriptor is free; [`InvalidInput`](io::ErrorKind::InvalidInput) if `epoll` is not
    /// an epoll; [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) above `max_user_watches`.
    pub fn new(epoll: &(impl AsFd + ?Sized), token: Token) -> io::Result<Self> {
        let epoll = Arc::new(epoll.as_fd().try_clone_to_owned()?);
        let eventfd = Registration::new(&epoll, sys::eventfd()?, |epoll, fd| {
            epoll::add(epoll, fd, token, Interest::IN | Interest::ET)
        })
        .map_err(|error| error.error())?;
        Ok(Self { eventfd })
    }

    /// `write(eventfd, 1)`—Wakes the thread that waits on the epoll; if none waits, the next wait returns at once.
    ///
    /// # Errors
    ///
    /// None in the first 2⁶⁴ - 2 calls.
    pub fn wake(&self) -> io::Result<()> {
        Ok(sys::eventfd_write(self.eventfd.as_fd())?)
    }
}
