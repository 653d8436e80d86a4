//! A batch of events, and how far it has been read.

use std::fmt;
use std::io;

use super::interest::Interest;
use super::sys::EVENTS_MAX;
use super::token::Token;

/// One descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    token: Token,
    interest: Interest,
}

impl Event {
    /// Under what the descriptor was registered.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// What is ready: all the kernel has said, bits without a name included.
    #[must_use]
    pub const fn interest(&self) -> Interest {
        self.interest
    }
}

/// A buffer for the events of one wait, with a cursor.
///
/// [`Epoll::wait`](super::epoll::Epoll::wait) fills it, and the iterator takes the events out. One buffer
/// serves for the life of a loop: nothing is allocated after it was made.
///
/// ## A batch that is left half read
///
/// The kernel reports an edge once. An event that was taken from it and thrown away is gone, and the
/// descriptor silent for good. So what a batch left unread is not overwritten: the next wait *on this buffer*
/// hands it out first, without a system call and whatever its timeout. [`clear`](Self::clear) forgets it on
/// purpose, and dropping the buffer half read forgets it without one.
///
/// While something is unread, a wait of another epoll on the same buffer is refused. Give each epoll its own.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use epoll_acceptor::{Epoll, Events, Token, Waker};
///
/// let epoll = Epoll::new()?;
/// let (one, two) = (Waker::new(&epoll, Token(1))?, Waker::new(&epoll, Token(2))?);
/// one.wake()?;
/// two.wake()?;
///
/// let mut events = Events::with_capacity(64)?;
/// assert_eq!(epoll.wait(&mut events, None)?.count(), 2);
/// let first = events.next().unwrap();
/// // The other one is still there after another wait, although both were edges.
/// assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO))?.count(), 1);
/// let second = events.next().unwrap();
/// assert_ne!(first.token(), second.token());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Events {
    buffer: Box<[libc::epoll_event]>,
    /// Invariant: `next <= filled <= buffer.len()`; between the two stand the unread.
    next: usize,
    filled: usize,
    /// Which epoll the unread are of.
    epoll: u64,
}

impl Events {
    /// A buffer for at most `capacity` events a wait.
    ///
    /// More descriptors than that may be ready: the rest comes with the next waits, and none of them is
    /// passed over for ever, since the kernel takes turns.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for 0, which the kernel refuses, and for more events than
    /// it can return at once (2 GiB of them); [`OutOfMemory`](io::ErrorKind::OutOfMemory).
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        if capacity == 0 {
            return Err(invalid(
                "a buffer for no events cannot be waited with: give it a capacity of 1 or more",
            ));
        }
        if capacity > EVENTS_MAX {
            return Err(invalid("one wait cannot return so many events: give the buffer a smaller capacity"));
        }
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(capacity)?;
        buffer.resize(capacity, libc::epoll_event { events: 0, u64: 0 });
        Ok(Self { buffer: buffer.into_boxed_slice(), next: 0, filled: 0, epoll: 0 })
    }

    /// Forgets what is unread. Edge-triggered descriptors among it stay silent until something new happens to
    /// them, or they are modified.
    pub fn clear(&mut self) {
        self.next = self.filled;
    }

    /// How many events are unread.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filled - self.next
    }

    /// Is nothing unread?
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events one wait can bring.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Whether what is unread came from another epoll than this one.
    #[inline]
    pub(crate) const fn are_foreign_to(&self, epoll: u64) -> bool {
        !self.is_empty() && self.epoll != epoll
    }

    /// Lets one wait write into the whole buffer; nothing may be unread.
    #[inline]
    pub(crate) fn refill<E>(
        &mut self,
        epoll: u64,
        wait: impl FnOnce(&mut [libc::epoll_event]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        debug_assert!(self.is_empty(), "unread events would be lost");
        (self.next, self.filled, self.epoll) = (0, 0, epoll);
        let filled = wait(&mut self.buffer)?;
        debug_assert!(filled <= self.buffer.len(), "the kernel fills no more than there is");
        self.filled = filled;
        Ok(filled)
    }
}

/// Takes the events out, oldest first. `None` means that another wait is due, not that there is no more.
impl Iterator for Events {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        if self.is_empty() {
            return None;
        }
        let event = self.buffer.get(self.next)?;
        self.next += 1;
        Some(Event { token: Token(event.u64), interest: Interest::from_bits_retain(event.events) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("unread", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

fn invalid(sentence: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence)
}
