//! Listeners with a long backlog, and clients that leave no TIME_WAIT.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

/// Returns a listener on loopback with a long backlog.
pub fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener on loopback");
    deepen(&listener);
    listener
}

/// Sets a backlog for the longest burst, as far as `net.core.somaxconn` allows.
pub fn deepen(listener: &impl AsFd) {
    SockRef::from(&listener.as_fd()).listen(8192).expect("a longer backlog");
}

/// Connects; the connection is queued when this returns. Its close is a reset, because TIME_WAIT entries would use up the
/// ports.
pub fn connect(address: &SocketAddr) -> TcpStream {
    reset_on_close(TcpStream::connect(address).expect("a connection"))
}

/// Makes the close a reset. For the end that is closed first.
pub fn reset_on_close(stream: TcpStream) -> TcpStream {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a linger");
    stream
}
