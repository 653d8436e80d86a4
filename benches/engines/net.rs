//! Listeners with deep queues, and clients that leave no trace.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

/// A listener on loopback with as much room in its queue as the system allows.
pub fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener on loopback");
    deepen(&listener);
    listener
}

/// Room in the queue for the longest burst, as far as the system allows it.
pub fn deepen(listener: &impl AsFd) {
    SockRef::from(&listener.as_fd()).listen(8192).expect("a longer queue");
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
