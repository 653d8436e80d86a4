//! Test helpers: runtimes, and clients that know whether they were served.

use std::future::Future;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::runtime::{Builder, Runtime};

/// A timeout that no passing test reaches, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// The text that a served client reads.
pub(crate) const HELLO: &[u8] = b"served";

/// Returns a runtime of each kind.
pub(crate) fn runtimes() -> [(&'static str, Runtime); 2] {
    [
        ("current thread", Builder::new_current_thread().enable_all().build().unwrap()),
        ("two threads", Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()),
    ]
}

/// Runs a future to its end on a runtime of each kind.
pub(crate) fn on_each<F: Future<Output = ()> + Send + 'static>(test: impl Fn() -> F) {
    for (kind, runtime) in runtimes() {
        let task = runtime.spawn(test());
        let ended = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
        ended.unwrap_or_else(|_| panic!("the test does not end ({kind})")).unwrap();
    }
}

pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Opens a listener with an abstract name.
pub(crate) fn listen_unix(name: &str) -> (Socket, SockAddr) {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let name = format!("\0epoll-acceptor-hosted-{name}-{}", std::process::id());
    let address = SockAddr::unix(name).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(4096).unwrap();
    (socket, address)
}

/// Connects clients; their connections are queued on return.
pub(crate) fn connect_many(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

pub(crate) fn serve(stream: &impl AsFd) {
    let copy: OwnedFd = stream.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(Socket::from(copy).send(HELLO).unwrap(), HELLO.len());
}

/// Asserts that each client reads its answer.
#[track_caller]
pub(crate) fn assert_all_served(clients: &[TcpStream]) {
    for mut client in clients {
        client.set_read_timeout(Some(LONG)).unwrap();
        let mut received = [0; HELLO.len()];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, HELLO);
    }
}
