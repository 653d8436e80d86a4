//! Clients of the echo server, over TCP or Unix sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{BOUND, eventually};

/// Where a server listens, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(text.parse().expect("a server says a TCP address or unix:PATH")),
        }
    }
}

/// One who says a line and wants it back.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
}

/// What a client has heard by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    Echo,
    /// The end of the connection, with or without a last word.
    End,
}

const LINE: &[u8] = b"anybody there?\n";

impl Client {
    pub(crate) fn connect(address: &Address) -> Self {
        raise_descriptor_limit();
        let (domain, target) = match address {
            Address::Tcp(address) => (Domain::for_address(*address), (*address).into()),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path).expect("a short path")),
        };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a descriptor for a client");
        // The bound of a connect to a Unix socket whose queue is full.
        socket.set_write_timeout(Some(BOUND)).expect("an option");
        match socket.connect(&target) {
            // Reset before it even knew that it was connected: it hears so when it listens.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            connected => connected.expect("the accept queue has room"),
        }
        Self { socket }
    }

    /// Connects and says its line.
    pub(crate) fn ask(address: &Address) -> Self {
        let client = Self::connect(address);
        // One who was refused at once finds out when it listens.
        let _ = (&client.socket).write(LINE);
        client
    }

    /// What there is to be heard now. An echo is heard once.
    pub(crate) fn listen(&self) -> Heard {
        let mut heard = [0; LINE.len()];
        self.socket.set_nonblocking(true).expect("a flag");
        match (&self.socket).read(&mut heard) {
            Ok(length) if heard[..length] == *LINE => Heard::Echo,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
            Ok(_) | Err(_) => Heard::End,
        }
    }

    #[track_caller]
    pub(crate) fn await_echo(&self) {
        let mut heard = Heard::Nothing;
        eventually("a client hears something", || {
            heard = self.listen();
            heard != Heard::Nothing
        });
        assert_eq!(heard, Heard::Echo, "a client is answered");
    }

    #[track_caller]
    pub(crate) fn await_end(&self) {
        eventually("a client is refused", || {
            let heard = self.listen();
            assert_ne!(heard, Heard::Echo, "a client that should be refused is answered");
            heard == Heard::End
        });
    }

    /// Everything until the end of the connection, or its reset.
    pub(crate) fn read_all(&self) -> Vec<u8> {
        self.socket.set_nonblocking(false).expect("a flag");
        self.socket.set_read_timeout(Some(BOUND)).expect("an option");
        let mut heard = Vec::new();
        match (&self.socket).read_to_end(&mut heard) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end comes: {error}"),
            _ => heard,
        }
    }

    /// Sends as much of `bytes` as goes without waiting.
    pub(crate) fn send_some(&self, bytes: &[u8]) -> usize {
        self.socket.set_nonblocking(true).expect("a flag");
        match (&self.socket).write(bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("the server broke the connection: {error}"),
        }
    }

    pub(crate) fn send_no_more(&self) {
        self.socket.shutdown(Shutdown::Write).expect("the connection stands");
    }

    /// Closes with a reset (a Unix socket just closes): no TIME_WAIT is left of the many clients of a test.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// Closes with a FIN: if it was queued, it is a CLOSE_WAIT socket there.
    pub(crate) fn close(self) {
        drop(self.socket);
    }
}

/// `size` clients in the order in which they came. Every other one quits at once, by turns with a FIN and
/// with a reset; those who stay have asked.
pub(crate) fn crowd(address: &Address, size: usize) -> Vec<Client> {
    let mut stayed = Vec::new();
    for number in 0..size {
        match number % 4 {
            0 => Client::connect(address).close(),
            2 => Client::ask(address).reset(),
            _ => stayed.push(Client::ask(address)),
        }
    }
    stayed
}

/// Hundreds of clients a test, and several tests at once, are more than the usual soft limit.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit anybody may go");
    });
}
