//! An echo server on actix-server: `echo LIMIT`.
//!
//! ```toml
//! [package]
//! name = "echo"
//! version = "0.0.0"
//! edition = "2024"
//!
//! [dependencies]
//! actix-server = { path = "../actix-server-2.8.0" }
//! actix-rt = "2"
//! actix-service = "2"
//! tokio = { version = "1", features = ["io-util"] }
//!
//! [patch.crates-io]
//! epoll-acceptor = { path = "../epoll-acceptor" }
//! ```

use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::fn_service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[actix_rt::main]
async fn main() -> std::io::Result<()> {
    let limit = std::env::args().nth(1).unwrap().parse().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    Server::build()
        .workers(1)
        .max_concurrent_connections(limit)
        .listen("echo", listener, || {
            fn_service(|mut stream: TcpStream| async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
                Ok::<_, std::io::Error>(())
            })
        })?
        .run()
        .await
}
