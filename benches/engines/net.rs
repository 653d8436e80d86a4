//! Listeners with deep queues, and clients that leave no trace.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// A listener on loopback with as much room in its queue as the system allows.
pub fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener on loopback");
    SockRef::from(&listener).listen(8192).expect("a longer queue");
    listener
}

/// Connected, and queued when this returns. Its close is a reset: no TIME_WAIT is left to fill the table of ports.
pub fn connect(address: &SocketAddr) -> TcpStream {
    reset_on_close(TcpStream::connect(address).expect("a connection"))
}

/// For the end that is closed first.
pub fn reset_on_close(stream: TcpStream) -> TcpStream {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a linger");
    stream
}
