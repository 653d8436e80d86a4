//! The event buffer of a wait, with a read cursor.

use std::fmt;
use std::io;

use super::interest::Interest;
use super::sys::EVENTS_MAX;
use super::token::Token;

/// A readiness event of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    token: Token,
    interest: Interest,
}

impl Event {
    /// Returns the token of the registration.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// Returns the event bits as the kernel reported them, including bits without a name.
    #[must_use]
    pub const fn interest(&self) -> Interest {
        self.interest
    }
}

/// A buffer for the events of one wait, with a read cursor.
///
/// [`Epoll::wait`](super::epoll::Epoll::wait) fills the buffer; the iterator reads it. Reuse one buffer for the life of
/// an event loop: only [`with_capacity`](Self::with_capacity) allocates.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use epoll_acceptor::epoll::Waker;
/// use epoll_acceptor::{Epoll, Events, Token};
///
/// let epoll = Epoll::new()?;
/// let (one, two) = (Waker::new(&epoll, Token(1))?, Waker::new(&epoll, Token(2))?);
/// one.wake()?;
/// two.wake()?;
///
/// let mut events = Events::with_capacity(64)?;
/// assert_eq!(epoll.wait(&mut events, None)?.count(), 2);
/// let first = events.next().unwrap();
/// // The second event is still in the buffer after another wait, although both are edge-triggered.
/// assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO))?.count(), 1);
/// let second = events.next().unwrap();
/// assert_ne!(first.token(), second.token());
/// # Ok(())
/// # }
/// ```
///
/// ## Unread events
///
/// The kernel reports an edge once: an event that is discarded unread is a lost wakeup. Therefore a wait does not
/// overwrite unread events. The next wait *with this buffer* returns them first, without a system call and regardless
/// of its timeout. [`clear`](Self::clear) and dropping the buffer discard them.
///
/// While the buffer holds unread events, a wait of another epoll with it is an error. Use one buffer per epoll.
#[must_use]
pub struct Events {
    buffer: Box<[libc::epoll_event]>,
    /// Invariant: `next <= filled <= buffer.len()`; `buffer[next..filled]` is unread.
    next: usize,
    filled: usize,
    /// The id of the epoll that filled the buffer.
    epoll: u64,
}

impl Events {
    /// Allocates a buffer for at most `capacity` events per wait.
    ///
    /// If more descriptors are ready, the next waits report the others: the kernel rotates through them, so none
    /// starves.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `capacity` is 0 or exceeds `INT_MAX` bytes of events, the limit
    /// of the kernel; [`OutOfMemory`](io::ErrorKind::OutOfMemory).
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        if capacity == 0 {
            return Err(invalid("an event buffer needs a capacity of 1 or more"));
        }
        if capacity > EVENTS_MAX {
            return Err(invalid(
                "the capacity exceeds INT_MAX bytes of events, the limit of one wait: use a smaller capacity",
            ));
        }
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(capacity)?;
        buffer.resize(capacity, libc::epoll_event { events: 0, u64: 0 });
        Ok(Self { buffer: buffer.into_boxed_slice(), next: 0, filled: 0, epoll: 0 })
    }

    /// Discards the unread events.
    ///
    /// The kernel reports an edge-triggered one again only after new activity or
    /// [`modify`](super::epoll::Epoll::modify).
    pub fn clear(&mut self) {
        self.next = self.filled;
    }

    /// Returns the number of unread events.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filled - self.next
    }

    /// Returns `true` if no event is unread.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the maximum number of events per wait.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Returns `true` if an epoll other than `epoll` reported the unread events.
    #[inline]
    pub(crate) const fn are_of_another_epoll(&self, epoll: u64) -> bool {
        !self.is_empty() && self.epoll != epoll
    }

    /// Lets `wait` write into the whole buffer, which must hold no unread events.
    #[inline]
    pub(crate) fn refill<E>(
        &mut self,
        epoll: u64,
        wait: impl FnOnce(&mut [libc::epoll_event]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        debug_assert!(self.is_empty(), "unread events would be lost");
        (self.next, self.filled, self.epoll) = (0, 0, epoll);
        let filled = wait(&mut self.buffer)?;
        debug_assert!(filled <= self.buffer.len(), "the kernel returns at most maxevents");
        self.filled = filled;
        Ok(filled)
    }
}

/// Reads the events in the kernel's order. `None` means that the buffer is read to its end: wait again.
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

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
