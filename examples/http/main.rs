//! An HTTP server on axum, with a connection limit: who comes when it is full reads a 503 at once, and
//! SIGTERM ends it when the last request has been answered.
//!
//! ```text
//! cargo run --release --features tokio --example http -- --listen 127.0.0.1:8080 --limit 100
//! ```

mod door;

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use epoll_acceptor::{Gate, LevelTriggered, Refusal, WhenFull};
use lexopt::prelude::*;
use tokio::signal::unix::{SignalKind, signal};

use crate::door::Door;

const HELP: &str = "\
Usage: http --listen ADDR [--limit N]

      --listen ADDR  127.0.0.1:8080 or [::1]:0 (any port)
      --limit N      at most N connections at once (default 100); who comes
                     when it is full is told 503
  -h, --help         print this help

GET / says hello, POST / says what was sent. Prints `listening on ADDR` when it
is ready. SIGINT or SIGTERM ends it when the last request has been answered, and
it prints its counters.
";

/// Sent without waiting and without a look at the request: the client need not even have sent one.
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\n\
                    retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

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
    let gate = Gate::new(limit).when_full(WhenFull::Shed(Refusal::last_word(BUSY)));
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let acceptor = LevelTriggered::on(listener).gate(&gate).into_async().map_err(io::Error::from)?;
    let control = acceptor.control();
    let (door, broken) = Door::new(acceptor);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("listening on {address}");

    let (says, why) = tokio::sync::oneshot::channel();
    let ends = async move {
        let why = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            why = broken => why.ok(),
        };
        let _ = says.send(why);
    };
    let app = Router::new().route("/", get(async || "hello\n").post(async |sent: Bytes| sent));
    axum::serve(door, app).with_graceful_shutdown(ends).await?;
    println!("http: {}", control.counters());
    match why.await {
        Ok(Some(error)) => Err(error.into()),
        _ => Ok(()),
    }
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
    Ok(Some((listen.ok_or("--listen ADDR is missing")?, limit)))
}
