//! The trait that user code drives, and its iterator.

use super::backend::Backend;
use super::control::Control;
use super::core::{AcceptCore, Step};
use super::counters::Counters;
use super::shutdown::ShutdownReport;
use super::state::{ListenerClosed, State};
use crate::admission::connection::Connection;
use crate::admission::filter::Filter;
use crate::admission::semaphore::Semaphore;

/// Seals [`Acceptor`]: users cannot name it, so they can neither implement the trait nor call its steps.
#[derive(Clone, Copy, Debug)]
pub struct Sealed(());

impl Sealed {
    /// For [`Hosted`](crate::Hosted), which keeps a pass open between the calls of its owner. Only it waits on the
    /// inner epoll, and only between two passes.
    pub(crate) const HOST: Self = Self(());
}

/// Accepts connections from one listener on one epoll, and never strands one.
///
/// # How to drive it
///
/// 1. Wait on the epoll.
/// 2. For every event that carries the acceptor's token, begin one pass: iterate [`ready`](Self::ready), or call
///    [`drain`](Self::drain). The event may come from the listener, from a permit that was released, from a
///    [`Control`], or from the timer; the pass finds out.
/// 3. Wait again.
///
/// A pass may be left at any point, by `break`, `return`, `?`, a panic, or by forgetting the iterator: what is still
/// queued is reported by the next wait. A needless pass does no harm.
///
/// # Errors
///
/// A pass yields one error: [`ListenerClosed`], once, after everything that could still be accepted. Exhausted
/// descriptors, interrupted calls and aborted connections are handled inside: `?` ends a server only when its listener
/// is closed.
///
/// # Waiting inside the loop body
///
/// A wait consumes events. If the body of the loop waits on the same epoll, the events that it gets need a pass of
/// their own afterwards. So do the events of a wait that was made while a `Ready` existed.
///
/// # Passes without a step
///
/// Dropping or forgetting `ready()` before its first `next` strands no connection. But such a pass decides nothing: an
/// acceptor that should block (full, paused) is woken again and again until `next` is called.
///
/// # Examples
///
/// The trait is sealed; use it to be generic over acceptors:
///
/// ```
/// use std::net::TcpStream;
/// use epoll_acceptor::{Acceptor, ListenerClosed};
///
/// fn serve_all(acceptor: &mut impl Acceptor<Stream = TcpStream>) -> Result<usize, ListenerClosed> {
///     let mut served = 0;
///     for connection in acceptor.ready() {
///         let connection = connection?;
///         println!("hello {:?}", connection.peer_addr());
///         served += 1;
///     }
///     Ok(served)
/// }
/// ```
pub trait Acceptor: Sized {
    /// The type of a connection's stream, such as `TcpStream`: [`Listener`](crate::socket::Listener) chooses it.
    type Stream;
    /// The permit of a connection in service: [`Permit`](crate::Permit).
    type Permit;

    #[doc(hidden)]
    fn expects_arrival(&self, sealed: Sealed) -> bool;

    #[doc(hidden)]
    fn begin(&mut self, forgettable: bool, sealed: Sealed);

    #[doc(hidden)]
    fn advance(&mut self, sealed: Sealed) -> Step<Connection<Self::Stream, Self::Permit>>;

    /// Returns a handle to pause, stop, shut down and observe the acceptor from any thread, and from inside a pass.
    #[must_use]
    fn control(&self) -> Control;

    /// Begins a pass, and yields its connections: owned, non-blocking, close-on-exec, each with its permit.
    ///
    /// Ends when the pass is over: the queue is empty, the budget is used, no permit or descriptor is available, or the
    /// acceptor was paused or stopped.
    #[inline]
    fn ready(&mut self) -> Ready<'_, Self> {
        self.begin(true, Sealed(()));
        Ready { acceptor: self }
    }

    /// Begins a pass, and calls `serve` with each of its connections. Returns how many.
    ///
    /// # Errors
    ///
    /// [`ListenerClosed`], once, after what could still be accepted.
    fn drain(
        &mut self,
        mut serve: impl FnMut(Connection<Self::Stream, Self::Permit>),
    ) -> Result<usize, ListenerClosed> {
        let mut served = 0;
        self.begin(false, Sealed(()));
        for connection in (Ready { acceptor: self }) {
            serve(connection?);
            served += 1;
        }
        Ok(served)
    }

    /// Returns the state of the acceptor.
    #[must_use]
    fn state(&self) -> State {
        self.control().state()
    }

    /// Returns the counters of the acceptor.
    #[must_use]
    fn counters(&self) -> Counters {
        self.control().counters()
    }

    /// Returns the report of a graceful shutdown, when it has ended.
    #[must_use]
    fn shutdown_report(&self) -> Option<ShutdownReport> {
        self.control().shutdown_report()
    }
}

/// The connections of one pass; made by [`Acceptor::ready`].
#[derive(Debug)]
#[must_use = "a pass that is not iterated accepts nothing"]
pub struct Ready<'a, A> {
    acceptor: &'a mut A,
}

impl<A: Acceptor> Iterator for Ready<'_, A> {
    type Item = Result<Connection<A::Stream, A::Permit>, ListenerClosed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.acceptor.advance(Sealed(()))
    }
}

impl<A: Acceptor> std::iter::FusedIterator for Ready<'_, A> {}

impl<B: Backend, G: Semaphore, F: Filter> Acceptor for AcceptCore<B, G, F> {
    type Stream = B::Stream;
    type Permit = (F::Permit, G::Permit);

    fn expects_arrival(&self, _: Sealed) -> bool {
        Self::expects_arrival(self)
    }

    #[inline]
    fn begin(&mut self, forgettable: bool, _: Sealed) {
        Self::begin(self, forgettable);
    }

    #[inline]
    fn advance(&mut self, _: Sealed) -> Step<Connection<B::Stream, Self::Permit>> {
        let taken = Self::advance(self)?;
        Some(taken.map(|(stream, filter, gate)| Connection::new(stream, (filter, gate)).with_peer(self.peer)))
    }

    fn control(&self) -> Control {
        Self::control(self)
    }
}
