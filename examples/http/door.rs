//! An acceptor where axum wants a listener.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::serve::Listener;
use epoll_acceptor::{
    AsyncAcceptor, AsyncWindingDown, Connection, EpollAcceptor, Gate, LevelTriggered, Pending, Refusal,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::guest::Guest;

type Acceptor = AsyncAcceptor<EpollAcceptor<TcpListener, LevelTriggered, Gate>>;

/// Hands axum connections that carry their permits: a place is free again when axum drops the connection.
///
/// When the service ends, axum closes at once what it has heard nothing of: those who had just come in, with their request
/// on its way, would be reset. So the door says that it is over when each of them has been heard, or has been silent for long.
pub(crate) struct Door {
    state: State,
    address: SocketAddr,
    /// Whoever comes when there is no time left to serve them reads this.
    refusal: Refusal,
    /// Whether the service is to end, and how.
    ends: watch::Receiver<Option<End>>,
    /// Each connection that has not been heard yet has a copy of the first.
    unheard: (Option<mpsc::Sender<Infallible>>, mpsc::Receiver<Infallible>),
    /// Told once, when no more connections will come. axum has no word for that, and would wait for ever.
    over: Option<oneshot::Sender<io::Result<()>>>,
}

/// How a service ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Nobody new is let in, whoever is queued is served, and the listener is closed.
    WindDown,
    /// Another process has the listener, and the queue with it.
    Leave,
}

#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum State {
    Open(Acceptor),
    Ending(AsyncWindingDown<TcpListener, LevelTriggered, Gate>),
    Closed,
}

/// How long the queue may take to be served.
const WITHIN: Duration = Duration::from_secs(5);
/// How long a client that has come in may be silent when the service ends.
const FIRST_WORDS: Duration = Duration::from_secs(5);

impl Door {
    /// `ends` tells it to end; the other half of `over` hears that it has.
    pub(crate) fn new(
        acceptor: Acceptor,
        refusal: Refusal,
        ends: watch::Receiver<Option<End>>,
        over: oneshot::Sender<io::Result<()>>,
    ) -> io::Result<Self> {
        let address = acceptor.listener().local_addr()?;
        let (sender, receiver) = mpsc::channel(1);
        let unheard = (Some(sender), receiver);
        Ok(Self { state: State::Open(acceptor), address, refusal, ends, unheard, over: Some(over) })
    }

    /// The next connection, or `None` when there will be no more.
    async fn next(&mut self) -> io::Result<Option<Connection<TcpStream>>> {
        if let State::Open(acceptor) = &mut self.state {
            let end = tokio::select! {
                next = acceptor.accept() => return next,
                // Whoever was to tell is gone: that is an end as well.
                end = self.ends.wait_for(Option::is_some) => end.ok().and_then(|end| *end),
            };
            self.end(end.unwrap_or(End::WindDown));
        }
        match &mut self.state {
            State::Ending(ending) => ending.accept().await,
            State::Open(_) | State::Closed => Ok(None),
        }
    }

    fn end(&mut self, end: End) {
        if let State::Open(acceptor) = std::mem::replace(&mut self.state, State::Closed) {
            match end {
                End::WindDown => {
                    let rest = Pending::Serve(self.refusal.clone());
                    self.state = State::Ending(acceptor.wind_down(rest, WITHIN));
                }
                // Deregistered, and closed here: the socket lives on in the other process.
                End::Leave => drop(acceptor.into_listener()),
            }
        }
    }

    async fn close(&mut self, why: io::Result<()>) {
        if let State::Ending(ending) = std::mem::replace(&mut self.state, State::Closed) {
            eprintln!("{:?}", ending.finish());
        }
        self.unheard.0 = None;
        let _ = tokio::time::timeout(FIRST_WORDS, self.unheard.1.recv()).await;
        let _ = self.over.take().map(|over| over.send(why));
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.next().await {
                Ok(Some(connection)) => {
                    // Without an address it was reset while it was queued: nobody is there.
                    if let Ok(address) = connection.peer_addr() {
                        return (Guest::new(connection, self.unheard.0.clone()), address);
                    }
                }
                Ok(None) => self.close(Ok(())).await,
                Err(error) => self.close(Err(error)).await,
            }
            if matches!(self.state, State::Closed) {
                return pending().await;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
