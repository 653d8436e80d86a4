//! Clients on loopback.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// The limit of every gate.
pub(crate) const LIMIT: u32 = 4;
/// The bound of every wait.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A client; its connection is queued when it has connected.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_from([127, 0, 0, 1], address)
    }

    pub(crate) fn connect_from(ip: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((ip, 0)).into()).expect("a loopback address");
        socket.connect(&address.into()).expect("room in the accept queue");
        socket.set_read_timeout(Some(WITHIN)).expect("a timeout");
        Self(socket.into())
    }

    /// Waits for `hello`, and closes.
    pub(crate) fn await_greeting(mut self) {
        let mut greeting = [0; 5];
        self.0.read_exact(&mut greeting).expect("a greeting");
        assert_eq!(&greeting, b"hello");
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
