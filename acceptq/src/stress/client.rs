//! A test client: connects, waits, sends a request, and records what it receives.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::probe::target::canonical;

/// If the server sends data first and closes within this time, the data was a refusal message.
const REFUSAL_WINDOW: Duration = Duration::from_millis(50);

/// The errors of connect(2) that count as a refusal by the server.
const REFUSALS: [i32; 5] =
    [libc::ECONNREFUSED, libc::ECONNRESET, libc::ECONNABORTED, libc::EPIPE, libc::ETIMEDOUT];

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SockAddr,
    pub(crate) kind: Type,
}

/// The request of a client, and the delay before it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) payload: Vec<u8>,
    pub(crate) delay: Duration,
}

/// How the server treats a client below its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Behavior {
    /// Sends data first.
    Greets,
    /// Sends data first, then closes.
    GreetsAndCloses,
    /// Answers a request.
    Answers,
    /// Closes on a request that it does not understand.
    ClosesWhenAsked,
    /// Accepts, but sends nothing.
    Silent,
}

/// The outcome of a client so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not connected, or connected and not answered.
    Pending,
    Answered,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
    endpoint: Endpoint,
    connected: Option<Instant>,
    received: Option<Instant>,
    sent: bool,
    /// Received data before it sent its request.
    unsolicited: bool,
    closed: bool,
    /// When the kernel first showed it as accepted.
    accepted: Option<Instant>,
}

impl Client {
    /// Starts to connect; [`step`](Self::step) continues.
    pub(crate) fn start(endpoint: &Endpoint) -> io::Result<Self> {
        let mut client = Self::prepare(endpoint)?;
        client.connect()?;
        Ok(client)
    }

    /// Creates a socket without connecting, so that many clients can connect in a short time.
    pub(crate) fn prepare(endpoint: &Endpoint) -> io::Result<Self> {
        let socket = Socket::new(Domain::from(i32::from(endpoint.address.family())), endpoint.kind, None)?;
        socket.set_nonblocking(true)?;
        let endpoint = endpoint.clone();
        Ok(Self {
            socket,
            endpoint,
            connected: None,
            received: None,
            sent: false,
            unsolicited: false,
            closed: false,
            accepted: None,
        })
    }

    /// Connects. If the queue is full, TCP retransmits its SYN, and a Unix client must retry.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        match self.socket.connect(&self.endpoint.address) {
            Ok(()) => self.connected = Some(Instant::now()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EISCONN) => self.connected = Some(Instant::now()),
                Some(libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN | libc::EINTR) => {}
                Some(errno) if REFUSALS.contains(&errno) => self.closed = true,
                // An error of this machine, not of the server.
                _ => return Err(connect_error(&error)),
            },
        }
        Ok(())
    }

    /// Reads what has arrived, and sends the request when it is due.
    pub(crate) fn step(&mut self, request: Option<&Request>) -> io::Result<()> {
        if self.connected.is_none() && !self.closed {
            self.connect()?;
        }
        let Some(connected) = self.connected else { return Ok(()) };
        self.read();
        let Some(request) = request else { return Ok(()) };
        let is_silent = self.received.is_none() && !self.closed && !self.sent;
        if is_silent && connected.elapsed() >= request.delay {
            self.sent = true;
            // If the server has closed, the next read reports it.
            let _ = (&self.socket).write(&request.payload);
        }
        Ok(())
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while !self.closed {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(_) => {
                    self.unsolicited |= self.received.is_none() && !self.sent;
                    self.received.get_or_insert_with(Instant::now);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true,
            }
        }
    }

    pub(crate) fn outcome(&self, behavior: Behavior) -> Outcome {
        let received = self.received.is_some();
        match (self.closed, self.sent && !self.unsolicited) {
            // Closed before it sent its request.
            (true, false) if received && behavior == Behavior::GreetsAndCloses => Outcome::Answered,
            (true, false) => Outcome::Refused,
            (true, true) if received || behavior == Behavior::ClosesWhenAsked => Outcome::Answered,
            (true, true) => Outcome::Refused,
            (false, true) if received => Outcome::Answered,
            // Within `REFUSAL_WINDOW` a close may follow: a refusal.
            (false, false) if self.received.is_some_and(|received| received.elapsed() > REFUSAL_WINDOW) => {
                Outcome::Answered
            }
            // An accepted connection may still be closed, which is a refusal.
            (false, _) if behavior == Behavior::Silent && self.accepted_for(REFUSAL_WINDOW) => {
                Outcome::Answered
            }
            (false, _) => Outcome::Pending,
        }
    }

    /// Returns how the server treated this client; `None` if nothing has arrived yet.
    pub(crate) fn behavior(&self) -> Option<Behavior> {
        match (self.received, self.closed, self.unsolicited) {
            (Some(_), true, true) => Some(Behavior::GreetsAndCloses),
            (Some(received), false, true) if received.elapsed() > REFUSAL_WINDOW => Some(Behavior::Greets),
            (Some(_), _, false) => Some(Behavior::Answers),
            (None, true, _) if self.sent => Some(Behavior::ClosesWhenAsked),
            _ => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// Records whether the kernel shows it as accepted.
    pub(crate) fn set_accepted(&mut self, is_accepted: bool) {
        if is_accepted {
            self.accepted.get_or_insert_with(Instant::now);
        } else {
            self.accepted = None;
        }
    }

    pub(crate) fn accepted_for(&self, time: Duration) -> bool {
        self.accepted.is_some_and(|accepted| accepted.elapsed() >= time)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns its identity in sock_diag: the address for TCP, the inode for Unix.
    pub(crate) fn id(&self) -> Option<ClientId> {
        self.connected?;
        match self.socket.local_addr().ok()?.as_socket() {
            Some(address) => Some(ClientId::Inet(canonical(address))),
            None => {
                let link = std::fs::metadata(format!("/proc/self/fd/{}", self.socket.as_raw_fd())).ok()?;
                Some(ClientId::Inode(u32::try_from(link.st_ino() & 0xffff_ffff).ok()?))
            }
        }
    }

    /// Sends another request and waits for a new answer.
    pub(crate) fn send(&mut self, text: &[u8]) -> io::Result<()> {
        (self.received, self.sent) = (None, true);
        (&self.socket).write_all(text)
    }

    /// Sends a FIN. The server's close then releases the connection.
    pub(crate) fn shutdown_write(&self) {
        // Fails if the server has closed.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Adds the remedy to an error of connect(2).
fn connect_error(error: &io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            "; no local port is free: lower --hold, or widen net.ipv4.ip_local_port_range"
        }
        Some(libc::EACCES | libc::EPERM) => "; run this as root or as a user with permission to connect",
        _ => "",
    };
    io::Error::new(error.kind(), format!("connect: {error}{remedy}"))
}

/// The identity of a client in sock_diag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientId {
    Inet(SocketAddr),
    Inode(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_connect_error_is_no_refusal() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let endpoint = Endpoint { address: address.into(), kind: Type::STREAM };
        let mut client = Client::start(&endpoint).expect("a refusal is not an error");
        while !client.is_closed() {
            client.step(None).expect("a refusal is not an error");
        }
        let nowhere = SockAddr::unix("/nowhere/at/all.sock").expect("a short path");
        let error =
            Client::start(&Endpoint { address: nowhere, kind: Type::STREAM }).expect_err("no such file");
        assert!(error.to_string().starts_with("connect: "), "{error}");
    }

    #[test]
    fn connect_error_states_remedy() {
        for (errno, remedy) in [(libc::EADDRNOTAVAIL, "lower --hold"), (libc::EACCES, "run this as root")] {
            let error = connect_error(&io::Error::from_raw_os_error(errno));
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }
}
