//! An acceptor where axum wants a listener.

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};

use axum::serve::Listener;
use epoll_acceptor::{AsyncAcceptor, Connection, EpollAcceptor, Gate, LevelTriggered};
use tokio::net::TcpStream;
use tokio::sync::oneshot::{Receiver, Sender, channel};

type Acceptor = AsyncAcceptor<EpollAcceptor<TcpListener, LevelTriggered, Gate>>;

/// Hands axum connections that carry their permits: a place is free again when axum drops the connection.
pub(crate) struct Door {
    acceptor: Acceptor,
    /// Told once, if the listener dies. axum has no word for that, and a server that only waits is never
    /// restarted.
    broken: Option<Sender<io::Error>>,
}

impl Door {
    pub(crate) fn new(acceptor: Acceptor) -> (Self, Receiver<io::Error>) {
        let (broken, hears) = channel();
        (Self { acceptor, broken: Some(broken) }, hears)
    }
}

impl Listener for Door {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.acceptor.accept().await {
                Ok(Some(connection)) => {
                    // Without an address it was reset while it was queued: nobody is there.
                    if let Ok(address) = connection.peer_addr() {
                        return (connection, address);
                    }
                }
                Ok(None) => pending().await,
                Err(error) => {
                    let _ = self.broken.take().map(|broken| broken.send(error));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.listener().local_addr()
    }
}
