//! axum with one tokio runtime for each core, and one limit for all. SIGTERM ends the service without a reset; started by
//! socket activation with as many sockets as cores (`ReusePort=`), it leaves their queues to the next process.
//!
//! ```text
//! cargo run --release -p servers --bin per_core -- --listen 127.0.0.1:8080 --limit 10000
//! ```

use std::error::Error;
use std::io;
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use axum::{Router, routing::get};
use epoll_acceptor::group::{Group, Member};
use epoll_acceptor::{AsyncAcceptor, Gate, Pending, Refusal};
use servers::{inherited, options};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Opens a listener for each core.
fn listen(address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    let mut group = Group::builder(address).bind(thread::available_parallelism()?.get())?;
    Ok(iter::from_fn(|| group.take()).map(Member::into_listener).collect())
}

/// Serves one listener, until the signal.
async fn serve(
    acceptor: AsyncAcceptor<TcpListener>,
    mut terminate: Signal,
    pending: Pending,
    within: Duration,
) -> io::Result<()> {
    let signal = async move {
        let _ = terminate.recv().await;
    };
    let (control, ended) = (acceptor.control(), acceptor.end_on(signal, pending, within));
    let app = Router::new().route("/", get(async || "hello\n"));
    axum::serve(acceptor, app).with_graceful_shutdown(ended).await?;
    println!("{}, {:?}", control.counters(), control.shutdown_report());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let (listeners, pending) = match inherited()? {
        none if none.is_empty() => (listen(options.listen)?, Pending::Serve(Refusal::Close)),
        inherited => (inherited, Pending::Keep),
    };
    let address = listeners[0].local_addr()?;
    let (gate, mut workers) = (Gate::new(options.limit), Vec::new());
    for listener in listeners {
        // Here, so that every listener is served and every signal handled before the first client comes.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let acceptor = options.trigger.on(listener).gate(&gate).build_tokio()?;
        let terminate = signal(SignalKind::terminate())?;
        drop(inside);
        let pending = pending.clone();
        let served = serve(acceptor, terminate, pending, options.within);
        workers.push(thread::spawn(move || runtime.block_on(served)));
    }
    println!("listening on {address}");
    for worker in workers {
        worker.join().expect("a worker panicked")?;
    }
    Ok(())
}
