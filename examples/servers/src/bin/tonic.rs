//! The health service of gRPC on tonic, with a limit, and an end that resets no client.
//!
//! ```text
//! cargo run --release -p servers --bin tonic -- --listen 127.0.0.1:50051
//! ```

use std::error::Error;

use epoll_acceptor::Gate;
use servers::{listener, options};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::new(options.limit);
    let (listener, pending) = listener(&options)?;
    let acceptor = options.trigger.on(listener).backlog(4_096).gate(&gate).build_tokio()?;
    let (control, mut terminate) = (acceptor.control(), signal(SignalKind::terminate())?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    let signal = async move {
        let _ = terminate.recv().await;
    };
    let ended = acceptor.end_on(signal, pending, options.within);
    let (_reporter, health) = tonic_health::server::health_reporter();
    Server::builder().add_service(health).serve_with_incoming_shutdown(acceptor, ended).await?;
    println!("{}, {:?}", control.counters(), control.shutdown_report());
    Ok(())
}
