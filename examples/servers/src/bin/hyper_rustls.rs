//! HTTPS on hyper and rustls, with a limit on the TLS handshakes that are under way and a time for each: clients that
//! connect and say nothing take no more than that stage. SIGTERM ends the service without a reset.
//!
//! ```text
//! cargo run --release -p servers --bin hyper_rustls -- --listen 127.0.0.1:8443 --handshakes 200
//! curl --insecure https://127.0.0.1:8443/
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::{Connection, Gate, LevelTriggered, PeerLimit, Permit};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use servers::{WITHIN, listener, options};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A server, as each of its connections knows it.
#[derive(Clone)]
struct Server {
    tls: TlsAcceptor,
    handshake_timeout: Duration,
}

impl Server {
    async fn serve<F>(
        self,
        connection: Connection<TcpStream, Permit<F>>,
        watcher: Watcher,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        // The permit is dropped after the stream, on every way out.
        let (stream, permit) = connection.into_parts();
        let stream = timeout(self.handshake_timeout, self.tls.accept(stream)).await??;
        // The next handshake may begin; the connection still counts against the limit.
        permit.handshake_done();
        let http = auto::Builder::new(TokioExecutor::new());
        let connection = http.serve_connection(TokioIo::new(stream), service_fn(hello)).into_owned();
        let served = watcher.watch(connection).await;
        drop(permit);
        served
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}

/// A certificate of its own, for `localhost`.
fn tls() -> Result<TlsAcceptor, Box<dyn Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der())?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::builder(options.limit).handshakes(options.handshakes).build();
    let (listener, pending) = listener(&options)?;
    let builder = LevelTriggered::on(listener).backlog(4_096).gate(&gate);
    let mut acceptor = builder.filter(options.per_peer.map(PeerLimit::new)).build_tokio()?;
    let (control, mut terminate) = (acceptor.control(), signal(SignalKind::terminate())?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    tokio::spawn(async move {
        terminate.recv().await;
        control.shutdown_gracefully(pending, WITHIN);
    });
    let server = Server { tls: tls()?, handshake_timeout: options.handshake_timeout };
    let graceful = GracefulShutdown::new();
    while let Some(connection) = acceptor.accept().await? {
        tokio::spawn(server.clone().serve(connection, graceful.watcher()));
    }
    // What was pending is accepted; each finishes its handshake before the connections that are idle are closed.
    while gate.handshakes_in_use() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let _ = timeout(WITHIN, graceful.shutdown()).await;
    println!("{:?}", acceptor.shutdown_report());
    Ok(())
}
