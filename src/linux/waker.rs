//! Waking a waiting thread from any other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::epoll;
use super::interest::Interest;
use super::registration::Registration;
use super::sys;
use super::token::Token;

/// Makes a wait return an event with a token of your choice, from any thread.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use epoll_acceptor::{Epoll, Events, Token, Waker};
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
/// An eventfd, registered edge-triggered and never read: every call is an edge of its own, so that answering
/// one takes no further system call. Any number of calls before the wait are one event. Dropped, it deletes
/// its registration, except in a forked child; share it in an [`Arc`] if several threads wake.
///
/// ## The event outlives the waker
///
/// A batch that was taken before the waker was dropped may still hold its event.
///
/// # References
///
/// [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html)
#[doc(alias = "eventfd")]
#[derive(Debug)]
pub struct Waker {
    eventfd: Registration<OwnedFd>,
}

impl Waker {
    /// Registers a waker with an epoll: this crate's, or any other.
    ///
    /// Duplicates the epoll's descriptor, for the day when it deletes its registration.
    ///
    /// # Errors
    ///
    /// Out of descriptors or of registrations; `epoll` is no epoll.
    pub fn new(epoll: &(impl AsFd + ?Sized), token: Token) -> io::Result<Self> {
        let epoll = Arc::new(epoll.as_fd().try_clone_to_owned()?);
        let eventfd = Registration::new(&epoll, sys::eventfd()?, |epoll, fd| {
            epoll::add(epoll, fd, token, Interest::IN | Interest::ET)
        })
        .map_err(|refused| refused.error())?;
        Ok(Self { eventfd })
    }

    /// `write(eventfd, 1)`—Makes the next wait on the epoll return this waker's event, or the one going on
    /// now.
    ///
    /// # Errors
    ///
    /// None before 2⁶⁴ - 2 calls.
    pub fn wake(&self) -> io::Result<()> {
        Ok(sys::eventfd_write(self.eventfd.as_fd())?)
    }
}
