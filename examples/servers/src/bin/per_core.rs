//! axum with one tokio runtime for each core, and one limit for all. SIGTERM ends the service without a reset.
//!
//! ```text
//! cargo run --release -p servers --bin per_core -- --listen 127.0.0.1:8080 --limit 10000
//! ```

use std::error::Error;
use std::io;
use std::thread;

use axum::{Router, routing::get};
use epoll_acceptor::group::{Group, Member};
use epoll_acceptor::{AsyncAcceptor, Gate, LevelTriggered, Pending, Refusal};
use servers::{WITHIN, options};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves one member, until the signal.
async fn serve(acceptor: AsyncAcceptor<Member>, mut terminate: Signal) -> io::Result<()> {
    let signal = async move {
        let _ = terminate.recv().await;
    };
    let ended = acceptor.end_on(signal, Pending::Serve(Refusal::Close), WITHIN);
    let app = Router::new().route("/", get(async || "hello\n"));
    axum::serve(acceptor, app).with_graceful_shutdown(ended).await
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let cores = thread::available_parallelism()?.get();
    let (gate, mut group) = (Gate::new(options.limit), Group::builder(options.listen).bind(cores)?);
    let mut workers = Vec::new();
    while let Some(member) = group.take() {
        // Here, so that every listener is served and every signal handled before the first client comes.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let acceptor = LevelTriggered::on(member).gate(&gate).build_tokio()?;
        let terminate = signal(SignalKind::terminate())?;
        drop(inside);
        workers.push(thread::spawn(move || runtime.block_on(serve(acceptor, terminate))));
    }
    println!("listening on {}", group.local_addr());
    for worker in workers {
        worker.join().expect("a worker panicked")?;
    }
    Ok(())
}
