//! Listeners from another process, by name.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use crate::linux::sys;
use crate::linux::sys::rights::socket_kind;

/// One received descriptor, by its kind.
#[derive(Debug)]
#[must_use = "dropping the last descriptor of a socket resets the connections in its queue"]
#[non_exhaustive]
pub enum Received {
    /// A listening TCP or MPTCP socket.
    Tcp(TcpListener),
    /// A listening Unix stream socket.
    Unix(UnixListener),
    /// Another listening socket; `OwnedFd` is a [`Listener`](crate::socket::Listener).
    Other(OwnedFd),
    /// Any other descriptor: a service manager also passes datagram sockets, FIFOs and devices.
    NotListening(OwnedFd),
}

/// The listeners that this process received from another one, each close-on-exec.
///
/// Take the ones that the program serves. Dropping `Listeners` closes the others, and resets the connections in their
/// queues if no other process holds the socket.
///
/// [`from_env`](super::from_env) and [`receive`](super::receive) return it and have examples.
#[derive(Debug, Default)]
#[must_use = "dropping the last descriptor of a socket resets the connections in its queue"]
pub struct Listeners {
    named: Vec<(String, Received)>,
}

impl Listeners {
    pub(super) fn new(named: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        Self { named: named.into_iter().map(|(name, fd)| (name, Received::of(fd))).collect() }
    }

    /// Returns the number of descriptors that have not been taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Returns `true` if no descriptor is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Returns the names in the order of the sender. A name can occur more than once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|(name, _)| name.as_str())
    }

    /// Takes the first descriptor of this name, of any kind.
    pub fn take(&mut self, name: &str) -> Option<Received> {
        let index = self.position(name)?;
        Some(self.named.remove(index).1)
    }

    /// Takes the first descriptor of this name, which must be a TCP or MPTCP listener.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if no descriptor has this name;
    /// [`InvalidData`](io::ErrorKind::InvalidData) if it is not a TCP listener; then it is not taken.
    pub fn take_tcp(&mut self, name: &str) -> io::Result<TcpListener> {
        self.take_as(name, "a listening TCP socket", |received| match received {
            Received::Tcp(listener) => Ok(listener),
            other => Err(other),
        })
    }

    /// Takes the first descriptor of this name, which must be a Unix stream listener.
    ///
    /// # Errors
    ///
    /// As for [`take_tcp`](Self::take_tcp).
    pub fn take_unix(&mut self, name: &str) -> io::Result<UnixListener> {
        self.take_as(name, "a listening Unix stream socket", |received| match received {
            Received::Unix(listener) => Ok(listener),
            other => Err(other),
        })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.named.iter().position(|(other, _)| other == name)
    }

    fn take_as<T>(
        &mut self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(Received) -> Result<T, Received>,
    ) -> io::Result<T> {
        let Some(index) = self.position(name) else {
            let names: Vec<&str> = self.names().collect();
            let message = format!("no listener has the name {name:?}: use one of {names:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        let (name, received) = self.named.remove(index);
        convert(received).map_err(|received| {
            let message = format!("the descriptor named {name:?} must be {expected}, but is {received}");
            self.named.insert(index, (name, received));
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }
}

impl IntoIterator for Listeners {
    type Item = (String, Received);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.named.into_iter()
    }
}

impl Received {
    fn of(fd: OwnedFd) -> Self {
        use libc::{AF_INET, AF_INET6, AF_UNIX, IPPROTO_MPTCP, IPPROTO_TCP, SOCK_STREAM};
        use std::os::fd::AsFd;
        if !sys::is_listening(fd.as_fd()) {
            return Self::NotListening(fd);
        }
        match socket_kind(&fd) {
            Ok((AF_INET | AF_INET6, SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP)) => Self::Tcp(fd.into()),
            Ok((AF_UNIX, SOCK_STREAM, _)) => Self::Unix(fd.into()),
            _ => Self::Other(fd),
        }
    }
}

/// Prints the kind: `a listening TCP socket`.
impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "a listening TCP socket",
            Self::Unix(_) => "a listening Unix stream socket",
            Self::Other(_) => "a listening socket of another kind",
            Self::NotListening(_) => "not a listening socket",
        })
    }
}
