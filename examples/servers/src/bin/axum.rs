//! axum with a limit: further clients read a 503 at once. SIGTERM ends the service without a reset; started by socket
//! activation, it leaves the queue to the next process.
//!
//! ```text
//! cargo run --release -p servers --bin axum -- --listen 127.0.0.1:8080 --limit 10000
//! ```

use std::error::Error;

use axum::{Router, routing::get};
use epoll_acceptor::{Gate, Refusal, WhenFull};
use servers::{listener, options};
use tokio::signal::unix::{SignalKind, signal};

/// Sent without blocking, and without waiting for a request.
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::builder(options.limit).when_full(WhenFull::Shed(Refusal::message(BUSY))).build();
    let (listener, pending) = listener(&options)?;
    let acceptor = options.trigger.on(listener).backlog(4_096).gate(&gate).build_tokio()?;
    let (control, mut terminate) = (acceptor.control(), signal(SignalKind::terminate())?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    let signal = async move {
        let _ = terminate.recv().await;
    };
    let ended = acceptor.end_on(signal, pending, options.within);
    let app = Router::new().route("/", get(async || "hello\n"));
    axum::serve(acceptor, app).with_graceful_shutdown(ended).await?;
    println!("{}, {:?}", control.counters(), control.shutdown_report());
    Ok(())
}
