//! Words for the tests: runtimes, clients that know whether they were served, and bounds.

use std::future::Future;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use epoll_acceptor::AnyListener;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::runtime::{Builder, Runtime};

/// More than any of these tests takes, even on a machine that is busy with others.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// What a served client reads.
pub(crate) const HELLO: &[u8] = b"served";

/// A runtime of each kind.
pub(crate) fn runtimes() -> [(&'static str, Runtime); 2] {
    [
        ("current thread", Builder::new_current_thread().enable_all().build().unwrap()),
        ("two threads", Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()),
    ]
}

/// Runs a future to its end, on a runtime of each kind.
pub(crate) fn on_each<F: Future<Output = ()> + Send + 'static>(test: impl Fn() -> F) {
    for (kind, runtime) in runtimes() {
        let task = runtime.spawn(test());
        let ended = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
        ended.unwrap_or_else(|_| panic!("not over in time ({kind})")).unwrap();
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

/// A listener without a name in the file system.
pub(crate) fn listen_unix(name: &str) -> (AnyListener<Socket>, SockAddr) {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let name = format!("\0epoll-acceptor-hosted-{name}-{}", std::process::id());
    let address = SockAddr::unix(name).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(4096).unwrap();
    (AnyListener(socket), address)
}

/// Clients whose connections are queued when this returns.
pub(crate) fn connect_many(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

pub(crate) fn serve(stream: &impl AsFd) {
    let copy: OwnedFd = stream.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(Socket::from(copy).send(HELLO).unwrap(), HELLO.len());
}

/// They read without waiting for long: who was served has it in the buffer already.
#[track_caller]
pub(crate) fn assert_all_served(clients: &[TcpStream]) {
    for mut client in clients {
        client.set_read_timeout(Some(LONG)).unwrap();
        let mut heard = [0; HELLO.len()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, HELLO);
    }
}
