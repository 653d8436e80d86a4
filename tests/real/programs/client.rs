//! Clients of the echo server, over TCP or Unix sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{BOUND, eventually};

/// Where a server listens, as it prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(text.parse().expect("a TCP address or unix:PATH")),
        }
    }
}

/// A client that sends a line and expects it back.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
}

/// What a client has received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Nothing,
    Echo,
    /// The end of the connection, with or without a message.
    End,
}

const LINE: &[u8] = b"hello, server!\n";

impl Client {
    pub(crate) fn connect(address: &Address) -> Self {
        raise_descriptor_limit();
        let (domain, target) = match address {
            Address::Tcp(address) => (Domain::for_address(*address), (*address).into()),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path).expect("a short path")),
        };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a descriptor for a client");
        // Bounds a connect to a Unix socket whose queue is full.
        socket.set_write_timeout(Some(BOUND)).expect("an option");
        match socket.connect(&target) {
            // Reset before the connect returned: `receive` reports it.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            connected => connected.expect("room in the accept queue"),
        }
        Self { socket }
    }

    /// Connects and sends the line.
    pub(crate) fn ask(address: &Address) -> Self {
        let client = Self::connect(address);
        // Fails if the server has refused the connection already; `receive` reports it.
        let _ = (&client.socket).write(LINE);
        client
    }

    /// Returns what has arrived. An echo is returned once.
    pub(crate) fn receive(&self) -> Received {
        let mut received = [0; LINE.len()];
        self.socket.set_nonblocking(true).expect("a flag");
        match (&self.socket).read(&mut received) {
            Ok(length) if received[..length] == *LINE => Received::Echo,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
            Ok(_) | Err(_) => Received::End,
        }
    }

    #[track_caller]
    pub(crate) fn await_echo(&self) {
        let mut received = Received::Nothing;
        eventually("a client receives something", || {
            received = self.receive();
            received != Received::Nothing
        });
        assert_eq!(received, Received::Echo, "a client is answered");
    }

    #[track_caller]
    pub(crate) fn await_end(&self) {
        eventually("a client is refused", || {
            let received = self.receive();
            assert_ne!(received, Received::Echo, "a client that should be refused is answered");
            received == Received::End
        });
    }

    /// Reads until the end of the connection, or its reset.
    pub(crate) fn read_all(&self) -> Vec<u8> {
        self.socket.set_nonblocking(false).expect("a flag");
        self.socket.set_read_timeout(Some(BOUND)).expect("an option");
        let mut received = Vec::new();
        match (&self.socket).read_to_end(&mut received) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("no end of the connection: {error}")
            }
            _ => received,
        }
    }

    /// Sends as much of `bytes` as is possible without blocking.
    pub(crate) fn send_some(&self, bytes: &[u8]) -> usize {
        self.socket.set_nonblocking(true).expect("a flag");
        match (&self.socket).write(bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("the server broke the connection: {error}"),
        }
    }

    pub(crate) fn shutdown_write(&self) {
        self.socket.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Closes with a reset, so that no TIME_WAIT is left (a Unix socket just closes).
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// Closes with a FIN: a queued connection becomes a CLOSE_WAIT socket.
    pub(crate) fn close(self) {
        drop(self.socket);
    }
}

/// Connects `count` clients. Every other one quits at once, alternately with a FIN and with a reset. Returns the others, which
/// have sent their line, in the order of their connects.
pub(crate) fn connect_clients(address: &Address, count: usize) -> Vec<Client> {
    let mut stayed = Vec::new();
    for number in 0..count {
        match number % 4 {
            0 => Client::connect(address).close(),
            2 => Client::ask(address).reset(),
            _ => stayed.push(Client::ask(address)),
        }
    }
    stayed
}

/// Hundreds of clients per test, and concurrent tests, exceed the usual soft limit.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the hard limit is allowed");
    });
}
