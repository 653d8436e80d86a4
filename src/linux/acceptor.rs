//! Acceptors on real listeners.

use std::fmt;

use super::backend::EpollBackend;
use super::listener::Listener;
use crate::admission::connection::Connection;
use crate::admission::filter::Filter;
use crate::admission::gate::Gate;
use crate::admission::permit::Permit;
use crate::drain::acceptor::{Acceptor, Sealed};
use crate::drain::control::Control;
use crate::drain::core::{AcceptCore, Step};

/// An [`Acceptor`] on a real listener and a real epoll.
///
/// Made by [`LevelTriggered::on`](crate::LevelTriggered::on), [`EdgeTriggered::on`](crate::EdgeTriggered::on),
/// [`Exclusive::on`](crate::Exclusive::on) or [`Trigger::on`](crate::Trigger::on). It owns the listener and its
/// registration. Dropping it closes the listener, which resets the connections that are pending: call
/// [`into_listener`](Self::into_listener) to hand the listener on, or
/// [`shutdown_gracefully`](Control::shutdown_gracefully) to end without resets.
///
/// It is `Send` and `Sync`: build it on one thread and run it on another. One thread at a time drives it (`&mut self`);
/// the others use a [`Control`].
///
/// ## Register after the last fork
///
/// A forked child's copy shares the epoll and every registration with its parent. Dropping it there, or taking the
/// listener out, deregisters nothing: otherwise the parent would get no more events. A child that runs passes (a server
/// that became a daemon after registering) owns the acceptor, provided that the parent runs none. To take the listener
/// out in the child, [stop](Control::stop) the acceptor and begin a pass first. The process id distinguishes processes,
/// but not across pid namespaces.
#[must_use = "dropping it closes the listener"]
pub struct EpollAcceptor<L: Listener, F: Filter = ()> {
    pub(super) core: AcceptCore<EpollBackend<L>, Option<Gate>, F>,
}

impl<L: Listener, F: Filter> EpollAcceptor<L, F> {
    /// Returns the listener, to read its address for example. Closing it or shutting it down ends the acceptor.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.core.backend().listener()
    }

    pub(crate) const fn accept_blocking(&mut self) {
        self.core.backend_mut().accept_blocking();
    }

    /// Takes the acceptor apart and returns the listener: not registered, non-blocking, and its queue intact (P10).
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use epoll_acceptor::{Epoll, LevelTriggered, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let epoll = Epoll::new()?;
    /// let acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(0))?;
    /// let client = TcpStream::connect(acceptor.listener().local_addr()?)?;
    ///
    /// let listener = acceptor.into_listener();
    /// assert_eq!(listener.accept()?.1, client.local_addr()?, "still queued");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "dropping the listener closes it and resets the connections that are pending"]
    pub fn into_listener(mut self) -> L {
        self.core.deregister();
        self.core.backend_mut().take_listener().expect("the listener is present until it is taken out")
    }
}

impl<L: Listener, F: Filter> Acceptor for EpollAcceptor<L, F> {
    type Stream = L::Stream;
    type Permit = Permit<F::Permit>;

    fn expects_arrival(&self, _: Sealed) -> bool {
        self.core.expects_arrival()
    }

    #[inline]
    fn begin(&mut self, forgettable: bool, _: Sealed) {
        self.core.begin(forgettable);
    }

    #[inline]
    fn advance(&mut self, _: Sealed) -> Step<Connection<L::Stream, Permit<F::Permit>>> {
        match self.core.advance()? {
            // Converted after it is counted and has its permit: a conversion that panics loses neither (P13).
            Ok((stream, filters, gate)) => {
                let permit = gate.unwrap_or_else(Permit::unlimited).with_filters(filters);
                Some(Ok(Connection::new(L::Stream::from(stream), permit).with_peer(self.core.peer())))
            }
            Err(closed) => Some(Err(closed)),
        }
    }

    fn control(&self) -> Control {
        self.core.control()
    }
}

impl<L: Listener + fmt::Debug, F: Filter> fmt::Debug for EpollAcceptor<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollAcceptor")
            .field("listener", self.listener())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
