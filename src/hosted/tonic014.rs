//! Connections for tonic 0.14.

use tonic::transport::server::Connected;

use super::graceful::GracefulConnection;
use crate::admission::connection::Connection;

impl<S: Connected, P> Connected for Connection<S, P> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        (**self).connect_info()
    }
}

/// Returns the stream's connection info, so that tonic's `serve_with_incoming` takes an acceptor.
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::{Gate, LevelTriggered, Pending, Refusal};
/// use tonic::transport::Server;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = Gate::new(10_000);
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio()?;
///
/// # let (terminate, terminated) = tokio::sync::oneshot::channel::<()>();
/// # let shutdown_signal = async { drop(terminated.await) };
/// # drop(terminate);
/// # let service = tonic::service::Routes::default();
/// let ended = acceptor.end_on(shutdown_signal, Pending::Serve(Refusal::Close), Duration::from_secs(5));
/// Server::builder().add_routes(service).serve_with_incoming_shutdown(acceptor, ended).await?;
/// # Ok(())
/// # }
/// ```
impl<S: Connected, P> Connected for GracefulConnection<S, P> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        (***self).connect_info()
    }
}
