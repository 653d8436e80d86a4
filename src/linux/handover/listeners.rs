//! Listeners that came from another process, by their names.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use crate::linux::sys;
use crate::linux::sys::rights::socket_kind;

/// What was handed over under one name.
#[derive(Debug)]
#[must_use = "dropping it closes the socket, and resets whoever is queued if nobody else holds it"]
#[non_exhaustive]
pub enum Received {
    /// A TCP or MPTCP socket that listens.
    Tcp(TcpListener),
    /// A Unix stream socket that listens.
    Unix(UnixListener),
    /// Another socket that listens: for [`OwnedFd`] as a [`Listener`](crate::linux::Listener).
    Other(OwnedFd),
    /// No listening socket. A service manager may pass such descriptors too.
    NotListening(OwnedFd),
}

/// The listeners that were handed over to this process, each close-on-exec.
///
/// Take out what the program serves. What is left is closed when this is dropped, and that is the end of its accept
/// queue if nobody else holds the socket.
///
/// Made by [`inherited`](super::inherited) and [`receive`](super::receive), which have examples.
#[derive(Debug, Default)]
#[must_use = "dropping the listeners closes them, and resets whoever is queued if nobody else holds them"]
pub struct Listeners {
    named: Vec<(String, Received)>,
}

impl Listeners {
    pub(super) fn new(named: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        Self { named: named.into_iter().map(|(name, fd)| (name, Received::of(fd))).collect() }
    }

    /// How many have not been taken out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Whether nothing was handed over, or everything has been taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The names, in the order in which they were handed over. A name may stand there more than once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|(name, _)| name.as_str())
    }

    /// Takes out the first of this name, whatever it is.
    pub fn take(&mut self, name: &str) -> Option<Received> {
        let at = self.named.iter().position(|(other, _)| other == name)?;
        Some(self.named.remove(at).1)
    }

    /// Takes out the first of this name, which must be a TCP listener.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if there is none of this name;
    /// [`InvalidData`](io::ErrorKind::InvalidData) if it does not listen, or not on TCP. It stays where it is.
    pub fn take_tcp(&mut self, name: &str) -> io::Result<TcpListener> {
        self.take_as(name, "a TCP socket that listens", |received| match received {
            Received::Tcp(listener) => Ok(listener),
            other => Err(other),
        })
    }

    /// Takes out the first of this name, which must be a Unix stream listener.
    ///
    /// # Errors
    ///
    /// As for [`take_tcp`](Self::take_tcp).
    pub fn take_unix(&mut self, name: &str) -> io::Result<UnixListener> {
        self.take_as(name, "a Unix stream socket that listens", |received| match received {
            Received::Unix(listener) => Ok(listener),
            other => Err(other),
        })
    }

    fn take_as<T>(
        &mut self,
        name: &str,
        wanted: &str,
        pick: impl FnOnce(Received) -> Result<T, Received>,
    ) -> io::Result<T> {
        let Some(at) = self.named.iter().position(|(other, _)| other == name) else {
            let there: Vec<&str> = self.names().collect();
            let why = format!("no listener named {name:?} was handed over: there is {there:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        };
        let (name, received) = self.named.remove(at);
        pick(received).map_err(|received| {
            let why = format!("what was handed over as {name:?} is {received}: hand over {wanted}");
            self.named.insert(at, (name, received));
            io::Error::new(io::ErrorKind::InvalidData, why)
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

/// `a TCP socket that listens`, and so on.
impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "a TCP socket that listens",
            Self::Unix(_) => "a Unix stream socket that listens",
            Self::Other(_) => "a socket of another kind that listens",
            Self::NotListening(_) => "no listening socket",
        })
    }
}
