//! An HTTP server on axum with a connection limit: at the limit, further clients read a 503 at once. SIGTERM ends it when
//! all queued connections have been served and the last request has been answered. SIGHUP replaces it by a new process
//! without a reset.
//!
//! ```text
//! cargo run --release --features axum08 --example http -- --listen 127.0.0.1:8080 --limit 100
//! ```

mod successor;

use std::error::Error;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use epoll_acceptor::{Control, Gate, LevelTriggered, Pending, Refusal, State, WhenFull};
use lexopt::prelude::*;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
Usage: http --listen ADDR [--limit N]

      --listen ADDR  127.0.0.1:8080 or [::1]:0 (any port)
      --limit N      at most N connections at once (default 100); further
                     clients read a 503
  -h, --help         print this help

GET / answers hello, POST / answers the body. Prints `listening on ADDR` when it
is ready. On SIGINT or SIGTERM it closes the intake, serves the connections that
are queued, answers the last request, and prints its counters. On SIGHUP it
starts this program again, hands over the listener, and ends when the new
process serves and the last request here has been answered.
";

/// Sent without blocking, and without waiting for a request.
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\n\
                    retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long serving the queue, and hearing of silent clients, may take when the service ends.
const WITHIN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let Some((address, limit)) = arguments()? else {
        print!("{HELP}");
        return Ok(());
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(serve(address, limit))
}

async fn serve(address: SocketAddr, limit: u32) -> Result<(), Box<dyn Error>> {
    let gate = Gate::builder(limit).when_full(WhenFull::Shed(Refusal::message(BUSY))).build();
    let (listener, inherited) = match successor::from_env()? {
        Some(listener) => (listener, true),
        None => (TcpListener::bind(address)?, false),
    };
    let address = listener.local_addr()?;
    // For a successor: a duplicate of the same socket.
    let duplicate = listener.try_clone()?;
    let acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio()?;
    let control = acceptor.control();
    let signal = obey_signals(control.clone(), duplicate)?;
    let ended = acceptor.end_on(signal, Pending::Serve(Refusal::message(BUSY)), WITHIN);
    if inherited {
        // An error means that the predecessor has ended, or that there is none. This process serves in any case.
        let _ = successor::confirm();
    }
    println!("listening on {address}");

    let app = Router::new().route("/", get(async || "hello\n").post(async |body: Bytes| body));
    axum::serve(acceptor, app).with_graceful_shutdown(ended).await?;
    println!("http: {}", control.counters());
    if let Some(report) = control.shutdown_report() {
        eprintln!("http: {report:?}");
    }
    if control.state() == State::Closed {
        return Err("the listener was closed".into());
    }
    Ok(())
}

/// Returns a future that ends at a signal to end the service. A successor is started meanwhile, and takes over by stopping
/// the acceptor.
fn obey_signals(control: Control, listener: TcpListener) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut replace = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = replace.recv() => match successor::start(&listener).await {
                    Ok(pid) => {
                        println!("replaced by {pid}");
                        // The queue stays with the socket, which the other process has.
                        control.stop();
                        // A signal to end this process would refuse the queue of the other.
                        return pending().await;
                    }
                    Err(error) => eprintln!("http: no successor: {error}; this process goes on serving"),
                },
            }
        }
    })
}

fn arguments() -> Result<Option<(SocketAddr, u32)>, lexopt::Error> {
    let (mut listen, mut limit) = (None, 100);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("listen") => listen = Some(arguments.value()?.parse()?),
            Long("limit") => limit = arguments.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some((listen.ok_or("--listen ADDR is required")?, limit)))
}
