//! dav-server on axum: `davd tokio`, or `davd acceptor LIMIT`.
//!
//! ```toml
//! [package]
//! name = "davd"
//! version = "0.0.0"
//! edition = "2024"
//!
//! [dependencies]
//! axum = { version = "0.8", default-features = false, features = ["http1", "tokio"] }
//! dav-server = { version = "0.12", default-features = false, features = ["memfs", "proppatch"] }
//! epoll-acceptor = { path = "../epoll-acceptor", features = ["axum08"] }
//! tokio = { version = "1", features = ["rt-multi-thread", "macros", "net", "sync"] }
//! ```

use axum::Router;
use axum::extract::{Extension, Request};
use axum::response::IntoResponse;
use dav_server::{DavHandler, memfs::MemFs, memls::MemLs};
use epoll_acceptor::{Gate, LevelTriggered};

#[tokio::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let dav = DavHandler::builder().filesystem(MemFs::new()).locksystem(MemLs::new()).build_handler();
    let app = Router::new().fallback(serve).layer(Extension(dav));
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    if arguments[1] == "tokio" {
        listener.set_nonblocking(true)?;
        return axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await;
    }
    let gate = Gate::new(arguments[2].parse().expect("a limit"));
    axum::serve(LevelTriggered::on(listener).gate(&gate).build_tokio()?, app).await
}

async fn serve(Extension(dav): Extension<DavHandler>, request: Request) -> impl IntoResponse {
    dav.handle(request).await
}
