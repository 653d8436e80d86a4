//! An echo server on tokio: the acceptor has an epoll of its own, which the runtime watches.
//!
//! ```text
//! cargo run --release --features tokio --example hosted_tokio -- --listen 127.0.0.1:8080 --limit 100
//! ```

#[path = "../echo/address.rs"]
mod address;
#[path = "../common/options.rs"]
mod options;

use std::error::Error;
use std::io;

use epoll_acceptor::Connection;
use epoll_acceptor::acceptor::IntoTokio;
use epoll_acceptor::socket::Listener;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::address::{Address, listen_tcp, listen_unix};
use crate::options::{HELP, Options};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::from_command_line()? else {
        print!("Usage: hosted_tokio --listen ADDR [OPTIONS]\n\n{HELP}");
        return Ok(());
    };
    match options.listen.clone() {
        Address::Tcp(address) => {
            let listener = listen_tcp(address)?;
            let bound = Address::Tcp(listener.local_addr()?);
            serve(listener, &bound, &options).await
        }
        Address::Unix(path) => {
            let (listener, _file) = listen_unix(path)?;
            serve(listener, &options.listen, &options).await
        }
    }
}

/// Serves until a signal arrives, and then prints the counters.
async fn serve<L>(listener: L, bound: &Address, options: &Options) -> Result<(), Box<dyn Error>>
where
    L: Listener,
    L::Stream: IntoTokio<Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static>,
{
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let builder = options.trigger.on(listener).budget(options.budget).gate(&options.gate);
    let mut acceptor = builder.build_tokio().map_err(io::Error::from)?;
    let control = acceptor.control();
    println!("listening on {bound}");
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        control.stop();
    });
    // A task for each connection, until the acceptor is stopped.
    while let Some(connection) = acceptor.accept().await? {
        tokio::spawn(echo(connection));
    }
    let hosted = acceptor.hosted();
    let (polls, idle_polls) = (hosted.polls(), hosted.idle_polls());
    println!("hosted_tokio: polls {polls}, idle_polls {idle_polls}, {}", hosted.counters());
    Ok(())
}

/// Echoes until the client closes or the connection breaks; then drops the connection, which releases its permit.
async fn echo<S>(mut connection: Connection<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
        if connection.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
