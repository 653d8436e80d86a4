//! HTTPS on hyper and rustls, with a limit on the TLS handshakes that are under way and a time for each: clients that
//! connect and say nothing take no more than that stage. SIGTERM ends the service without a reset.
//!
//! ```text
//! cargo run --release -p servers --bin hyper_rustls -- --listen 127.0.0.1:8443 --handshakes 200
//! curl --insecure https://127.0.0.1:8443/
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::acceptor::GracefulConnection;
use epoll_acceptor::{Gate, PeerLimit, Permit};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use servers::{listener, options};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
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
        connection: GracefulConnection<TcpStream, Permit<F>>,
        watcher: Watcher,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (connection, silent) = connection.into_parts();
        // The permit is dropped after the stream, on every way out.
        let (stream, permit) = connection.into_parts();
        let stream = timeout(self.handshake_timeout, self.tls.accept(stream)).await??;
        // The next handshake may begin; the connection still counts against the limit.
        permit.handshake_done();
        // The end of the service waits for the first request, which comes after the handshake.
        let silent = Mutex::new(silent);
        let hello = service_fn(move |_: Request<Incoming>| {
            drop(silent.lock().expect("never held in a panic").take());
            ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello\n"))))
        });
        let http = auto::Builder::new(TokioExecutor::new());
        let connection = http.serve_connection(TokioIo::new(stream), hello).into_owned();
        let served = watcher.watch(connection).await;
        drop(permit);
        served
    }
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
    let builder = options.trigger.on(listener).backlog(4_096).gate(&gate);
    let mut acceptor = builder.filter(options.per_peer.map(PeerLimit::new)).build_tokio()?;
    let mut terminate = signal(SignalKind::terminate())?;
    println!("listening on {}", acceptor.listener().local_addr()?);
    let signal = async move {
        let _ = terminate.recv().await;
    };
    let ended = tokio::spawn(acceptor.end_on(signal, pending, options.within));
    let server = Server { tls: tls()?, handshake_timeout: options.handshake_timeout };
    let graceful = GracefulShutdown::new();
    while let Some(connection) = acceptor.accept_graceful().await? {
        tokio::spawn(server.clone().serve(connection, graceful.watcher()));
    }
    // What was pending is accepted, and its first requests are read, before the connections that are idle are closed.
    ended.await?;
    let _ = timeout(options.within, graceful.shutdown()).await;
    println!("{}, {:?}", acceptor.counters(), acceptor.shutdown_report());
    Ok(())
}
