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

use epoll_acceptor::{Acceptor, AsyncAcceptor, Connection, IntoTokio, Listener};
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

/// Serves until a signal comes, and then says what was done.
async fn serve<L>(listener: L, bound: &Address, options: &Options) -> Result<(), Box<dyn Error>>
where
    L: Listener,
    L::Stream: IntoTokio<Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static>,
{
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let builder = options.trigger.on(listener).budget(options.budget).gate(&options.gate);
    let mut acceptor = builder.into_async().map_err(io::Error::from)?;
    let control = acceptor.control();
    println!("listening on {bound}");
    let ends = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        control.stop();
    };
    let (served, ()) = tokio::join!(welcome(&mut acceptor), ends);
    served?;
    let hosted = acceptor.hosted();
    println!("hosted_tokio: looks {}, sleeps {}, {}", hosted.polls(), hosted.idle_polls(), hosted.counters());
    Ok(())
}

/// A task for each connection, until the acceptor is stopped.
async fn welcome<A: Acceptor>(acceptor: &mut AsyncAcceptor<A>) -> io::Result<()>
where
    A::Permit: Send + Unpin + 'static,
    A::Stream: IntoTokio<Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static>,
{
    while let Some(connection) = acceptor.accept().await? {
        tokio::spawn(echo(connection));
    }
    Ok(())
}

/// Ends with the connection, and so gives its place back, whatever ended it.
async fn echo<S, P>(mut connection: Connection<S, P>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    P: Unpin,
{
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
        if connection.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
