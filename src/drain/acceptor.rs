//! The trait that user code is generic over, and its iterator.

use super::backend::Backend;
use super::core::{Drain, Step};
use super::counters::Counters;
use super::shared::Control;
use super::state::{ListenerClosed, State};
use super::strategy::Strategy;
use crate::admission::connection::Connection;
use crate::admission::policy::Admission;

/// What the steps of a pass ask for. Users cannot name it, and so begin no pass but by `ready` and `drain`.
#[derive(Clone, Copy, Debug)]
pub struct Key(());

impl Key {
    /// For a host that keeps a pass open between the calls of its owner. It alone waits on the epoll, and only between
    /// two passes: so no wait comes between the settling of a pass and its last step.
    pub(crate) const HOST: Self = Self(());
}

/// The steps of a pass.
pub trait Steps {
    /// What a connection is.
    type Stream;
    /// What it carries for its place.
    type Permit;

    /// `whole`: the first step is sure to follow.
    #[doc(hidden)]
    fn begin(&mut self, whole: bool, key: Key);

    #[doc(hidden)]
    fn advance(&mut self, key: Key) -> Step<Self::Stream, Self::Permit>;

    #[doc(hidden)]
    fn handle(&self) -> Control;
}

/// Accepts connections from one listener on one epoll, and never strands one.
///
/// # How to drive it
///
/// 1. Wait on the epoll.
/// 2. For every event with the acceptor's token, begin one pass: iterate [`ready`](Self::ready), or call
///    [`drain`](Self::drain). The event may come from the listener, from a permit given back, from a
///    [`Control`], or from the timer; the pass finds out.
/// 3. Go back to waiting.
///
/// A pass may be left at any point, by `break`, `return`, `?`, a panic, or by forgetting the iterator: whoever
/// still waits is reported again by the next wait. A needless pass does no harm.
///
/// # Only a dead listener is an error
///
/// Running out of descriptors, interrupted calls and connections that went away are handled inside. The one
/// error that a pass yields is [`ListenerClosed`], once, after everything that was still acceptable has been handed out:
/// `?` on it ends a server only when its listener is gone.
///
/// # Waiting inside the loop body
///
/// A wait takes events. If the body of the loop waits on the same epoll, the events it gets need a pass of their
/// own afterwards. The same goes for a `Ready` that is kept over a wait.
///
/// # A pass that is asked for nothing
///
/// Dropping or forgetting `ready()` before its first `next` strands nobody. But nothing has been decided either: an
/// acceptor that should fall asleep (full, paused) stays awake until it is asked.
///
/// # Its two types
///
/// `Stream` is what a connection is: a `TcpStream`, say, as [`Listener`](crate::linux::Listener) has it. `Permit` is
/// what it carries for its place: that of the policy, or `()` without one. Both stand in a supertrait without a name.
/// It seals this trait: the promises hold for the implementations of this crate.
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
pub trait Acceptor: Steps + Sized {
    /// Begins a pass, and yields its connections: owned, non-blocking, close-on-exec, each with its permit.
    ///
    /// Ends when the pass is over: nothing more waits, the budget is used up, no place or no descriptor is left,
    /// or the acceptor was paused or stopped.
    #[inline]
    fn ready(&mut self) -> Ready<'_, Self> {
        self.begin(false, Key(()));
        Ready { acceptor: self }
    }

    /// Begins a pass, and hands each of its connections to `serve`. Tells how many.
    ///
    /// # Errors
    ///
    /// [`ListenerClosed`] when the listener is gone, once, after what was still acceptable.
    fn drain(
        &mut self,
        mut serve: impl FnMut(Connection<Self::Stream, Self::Permit>),
    ) -> Result<usize, ListenerClosed> {
        let mut served = 0;
        self.begin(true, Key(()));
        for connection in (Ready { acceptor: self }) {
            serve(connection?);
            served += 1;
        }
        Ok(served)
    }

    /// A handle to pause, resume, stop and observe the acceptor from any thread, and from inside a pass.
    #[must_use]
    fn control(&self) -> Control {
        self.handle()
    }

    /// What the acceptor is doing.
    #[must_use]
    fn state(&self) -> State {
        self.handle().state()
    }

    /// What the acceptor has done.
    #[must_use]
    fn counters(&self) -> Counters {
        self.handle().counters()
    }
}

impl<T: Steps> Acceptor for T {}

/// The connections of one pass; see [`Acceptor::ready`].
#[derive(Debug)]
#[must_use = "a pass that is not iterated accepts nothing"]
pub struct Ready<'a, A> {
    acceptor: &'a mut A,
}

impl<A: Steps> Iterator for Ready<'_, A> {
    type Item = Result<Connection<A::Stream, A::Permit>, ListenerClosed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.acceptor.advance(Key(()))
    }
}

impl<A: Steps> std::iter::FusedIterator for Ready<'_, A> {}

impl<P: Backend, S: Strategy, A: Admission> Steps for Drain<P, S, A> {
    type Stream = P::Stream;
    type Permit = A::Permit;

    #[inline]
    fn begin(&mut self, whole: bool, _: Key) {
        Self::begin(self);
        if !whole {
            self.may_be_forgotten();
        }
    }

    #[inline]
    fn advance(&mut self, _: Key) -> Step<P::Stream, A::Permit> {
        Self::advance(self)
    }

    fn handle(&self) -> Control {
        self.control()
    }
}
