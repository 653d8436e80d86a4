//! An acceptor as axum's listener.

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::serve::Listener;
use epoll_acceptor::{AsyncAcceptor, Gate};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::stream::Stream;

/// Gives axum connections that carry their permits: a permit is released when axum drops the connection.
///
/// When a service ends, axum closes every connection on which it has read nothing, also one that was accepted a moment ago
/// and whose request is on its way. So the end is reported to axum only when every connection has sent something, or has
/// been silent for [`FIRST_BYTES`].
pub(crate) struct AcceptorListener {
    acceptor: AsyncAcceptor<TcpListener>,
    /// Its handshake stage counts the connections that have sent nothing yet.
    gate: Gate,
    /// Sent to once: axum's trait cannot say that no more connections will come.
    ended: Option<oneshot::Sender<()>>,
}

/// How long a client may be silent when the service ends.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// How often the silent ones are counted meanwhile.
const INTERVAL: Duration = Duration::from_millis(10);

impl AcceptorListener {
    /// The receiver becomes ready when the acceptor has ended, and the clients that it accepted have been heard.
    pub(crate) fn new(acceptor: AsyncAcceptor<TcpListener>, gate: Gate) -> (Self, oneshot::Receiver<()>) {
        let (ended, has_ended) = oneshot::channel();
        (Self { acceptor, gate, ended: Some(ended) }, has_ended)
    }

    async fn wait_for_first_bytes(&self) {
        while self.gate.handshakes_in_use() > 0 {
            sleep(INTERVAL).await;
        }
    }
}

impl Listener for AcceptorListener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        // `None` after a stop or a graceful shutdown; the only error is a closed listener, which the state shows.
        while let Ok(Some(connection)) = self.acceptor.accept().await {
            // Every TCP connection has one.
            if let Some(peer) = connection.peer() {
                return (Stream::new(connection), peer);
            }
        }
        let _ = timeout(FIRST_BYTES, self.wait_for_first_bytes()).await;
        let _ = self.ended.take().map(|ended| ended.send(()));
        pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.listener().local_addr()
    }
}
