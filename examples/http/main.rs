//! An HTTP server on axum, with a connection limit: who comes when it is full reads a 503 at once. SIGTERM ends it when
//! all who were queued have been served and the last request has been answered; SIGHUP puts a new process in its place,
//! and no client notices.
//!
//! ```text
//! cargo run --release --features tokio --example http -- --listen 127.0.0.1:8080 --limit 100
//! ```

mod door;
mod guest;
mod successor;

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use epoll_acceptor::{Gate, LevelTriggered, Refusal, WhenFull};
use lexopt::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::door::{Door, End};

const HELP: &str = "\
Usage: http --listen ADDR [--limit N]

      --listen ADDR  127.0.0.1:8080 or [::1]:0 (any port)
      --limit N      at most N connections at once (default 100); who comes
                     when it is full is told 503
  -h, --help         print this help

GET / says hello, POST / says what was sent. Prints `listening on ADDR` when it
is ready. SIGINT or SIGTERM ends it: nobody new is let in, who is queued is
served, and when the last request has been answered it prints its counters.
SIGHUP starts this program anew, hands it the listener, and ends when the new
process serves and the last request here has been answered.
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
    let busy = Refusal::message(BUSY);
    let gate = Gate::new(limit).when_full(WhenFull::Shed(busy.clone()));
    let (listener, inherited) = match successor::from_env()? {
        Some(listener) => (listener, true),
        None => (TcpListener::bind(address)?, false),
    };
    let address = listener.local_addr()?;
    // For a successor; it is the same socket.
    let listener_to_hand_on = listener.try_clone()?;
    let acceptor = LevelTriggered::on(listener).gate(&gate).into_async().map_err(io::Error::from)?;
    let control = acceptor.control();
    let (end, ends) = watch::channel(None);
    let (over, is_over) = oneshot::channel();
    let door = Door::new(acceptor, busy, ends, over)?;
    let signals = async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut replace = signal(SignalKind::hangup())?;
        if inherited {
            // Nobody need be there to hear it: a service manager, or a process that has ended meanwhile. This one serves.
            let _ = successor::confirm();
        }
        println!("listening on {address}");
        loop {
            let how = tokio::select! {
                _ = terminate.recv() => End::WindDown,
                _ = interrupt.recv() => End::WindDown,
                _ = replace.recv() => match successor::start(&listener_to_hand_on).await {
                    Ok(pid) => {
                        println!("replaced by {pid}");
                        End::Leave
                    }
                    Err(error) => {
                        eprintln!("no successor: {error}; this process goes on");
                        continue;
                    }
                },
            };
            // The socket closes with the last descriptor of it.
            drop(listener_to_hand_on);
            let _ = end.send(Some(how));
            return io::Result::Ok(());
        }
    };
    let signals = tokio::spawn(signals);

    let (says, why) = oneshot::channel();
    let ends = async move {
        let _ = says.send(is_over.await);
    };
    let app = Router::new().route("/", get(async || "hello\n").post(async |sent: Bytes| sent));
    axum::serve(door, app).with_graceful_shutdown(ends).await?;
    println!("http: {}", control.counters());
    // A listener that died, and signals that could not be heard, end it too.
    why.await???;
    if signals.is_finished() { Ok(signals.await??) } else { Ok(()) }
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
