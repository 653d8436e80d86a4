//! An acceptor as a listener of axum 0.8.

use std::future::{pending, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use axum::serve::Listener;

use super::future::AsyncAcceptor;
use super::graceful::GracefulConnection;
use crate::admission::filter::Filter;
use crate::admission::permit::Permit;

macro_rules! tcp {
    ($($(#[$attribute:meta])* $listener:ty),*) => {$(
        $(#[$attribute])*
        impl<F> Listener for AsyncAcceptor<$listener, F>
        where
            F: Filter<Permit: Unpin + Send + 'static> + 'static,
        {
            type Io = GracefulConnection<tokio::net::TcpStream, Permit<F::Permit>>;
            type Addr = SocketAddr;

            async fn accept(&mut self) -> (Self::Io, SocketAddr) {
                match poll_fn(|cx| self.poll_graceful(cx)).await {
                    Ok(Some(connection)) => {
                        // Every TCP connection has a peer.
                        let peer = connection.peer().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
                        (connection, peer)
                    }
                    _ => pending().await,
                }
            }

            fn local_addr(&self) -> io::Result<SocketAddr> {
                self.listener().local_addr()
            }
        }
    )*};
}

tcp!(
    /// For `axum::serve`. Each connection keeps its permit until axum drops the connection.
    ///
    /// axum's trait cannot report an end: after the acceptor was stopped or its listener was closed, `axum::serve`
    /// waits forever, unless it is told to shut down. Pass it [`end_on`](AsyncAcceptor::end_on). For the peer's address
    /// as `ConnectInfo<SocketAddr>`, call `tap_io` on the acceptor, and `into_make_service_with_connect_info` on the
    /// router.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::extract::ConnectInfo;
    /// use axum::routing::get;
    /// use axum::serve::ListenerExt;
    /// use axum::Router;
    /// use epoll_acceptor::{Gate, LevelTriggered, Pending, Refusal};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let gate = Gate::new(10_000);
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio()?;
    ///
    /// # let (terminate, terminated) = tokio::sync::oneshot::channel::<()>();
    /// # let shutdown_signal = async { drop(terminated.await) };
    /// # drop(terminate);
    /// let ended = acceptor.end_on(shutdown_signal, Pending::Serve(Refusal::Close), Duration::from_secs(5));
    /// let hello = |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| async move { format!("hello {peer}\n") };
    /// let app = Router::new().route("/", get(hello)).into_make_service_with_connect_info::<std::net::SocketAddr>();
    /// axum::serve(acceptor.tap_io(|stream| drop(stream.set_nodelay(true))), app).with_graceful_shutdown(ended).await
    /// # }
    /// ```
    TcpListener,
    /// A member of a group: one runtime for each core, and one gate for all.
    #[cfg(feature = "group")]
    crate::linux::group::Member
);

/// As for TCP. Most client addresses are unnamed.
impl<F> Listener for AsyncAcceptor<UnixListener, F>
where
    F: Filter<Permit: Unpin + Send + 'static> + 'static,
{
    type Io = GracefulConnection<tokio::net::UnixStream, Permit<F::Permit>>;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        while let Ok(Some(connection)) = poll_fn(|cx| self.poll_graceful(cx)).await {
            // Fails for a connection that is gone already.
            if let Ok(peer) = connection.peer_addr() {
                return (connection, peer);
            }
        }
        pending().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener().local_addr().map(Into::into)
    }
}
