//! The acceptor as a listener of axum and as a stream of tonic, with real clients.

mod axum_server;
mod tonic_server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use epoll_acceptor::{Control, State};
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};

/// A timeout that no passing test reaches, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn listen() -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

fn request(mut client: &TcpStream) {
    client.write_all(REQUEST).unwrap();
}

/// Reads to the end of the connection; a reset is an error.
fn response(mut client: &TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    client.read_to_string(&mut text).map(|_| text)
}

fn wait_until(control: &Control, reached: impl Fn(&Control) -> bool) {
    let begin = Instant::now();
    while !reached(control) {
        assert!(begin.elapsed() < LONG, "{:?}, {}", control.state(), control.counters());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until_stopped(control: &Control) {
    wait_until(control, |control| control.state() == State::Stopped);
}
