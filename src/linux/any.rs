//! TCP or Unix listeners and streams, decided at run time.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::listener::Listener;
use super::peer::PeerAddr;
use super::sys::options;

/// A TCP or Unix listener, for servers where the configuration decides.
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::socket::{AnyListener, AnyStream};
/// use epoll_acceptor::{Acceptor, Epoll, LevelTriggered, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = AnyListener::from(TcpListener::bind("127.0.0.1:0")?);
/// let epoll = Epoll::new()?;
/// let mut acceptor = LevelTriggered::on(listener).register(&epoll, Token(0))?;
/// for connection in acceptor.ready() {
///     match &*connection? {
///         AnyStream::Tcp(stream) => stream.set_nodelay(true)?,
///         AnyStream::Unix(_) => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub enum AnyListener {
    /// TCP or MPTCP.
    Tcp(TcpListener),
    /// A Unix stream socket.
    Unix(UnixListener),
}

/// A TCP or Unix stream: what an [`AnyListener`] accepts.
#[derive(Debug)]
pub enum AnyStream {
    /// TCP or MPTCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Listener for AnyListener {
    type Stream = AnyStream;
}

impl AnyStream {
    /// Returns the address of the peer. [`Connection::peer`](crate::Connection::peer) knows it after a reset, too.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the connection was reset.
    pub fn peer_addr(&self) -> io::Result<PeerAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(of_ip),
            Self::Unix(stream) => stream.peer_addr().map(PeerAddr::Unix),
        }
    }

    /// Moves the socket into or out of non-blocking mode. Accepted streams are non-blocking.
    ///
    /// # Errors
    ///
    /// Those of ioctl(2).
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Self::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Returns a second descriptor of the socket, to read and write on two threads for example.
    ///
    /// # Errors
    ///
    /// `EMFILE` if no descriptor is free.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    /// Shuts down reading, writing, or both.
    ///
    /// # Errors
    ///
    /// Those of shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }
}

/// Decides by the domain of the socket: a socket that is not a Unix socket becomes a `TcpStream`.
impl From<OwnedFd> for AnyStream {
    fn from(fd: OwnedFd) -> Self {
        match options::int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN) {
            Ok(libc::AF_UNIX) => Self::Unix(fd.into()),
            _ => Self::Tcp(fd.into()),
        }
    }
}

impl From<TcpListener> for AnyListener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for AnyListener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

fn of_ip(address: SocketAddr) -> PeerAddr {
    match address {
        SocketAddr::V4(address) => PeerAddr::V4(address),
        SocketAddr::V6(address) => PeerAddr::V6(address),
    }
}

macro_rules! either {
    ($type:ident) => {
        impl $type {
            /// Returns the address of the socket itself.
            ///
            /// ```
            /// use std::net::{TcpListener, TcpStream};
            /// use epoll_acceptor::socket::{AnyListener, AnyStream};
            /// use std::os::fd::OwnedFd;
            ///
            /// # fn main() -> std::io::Result<()> {
            /// let listener = AnyListener::from(TcpListener::bind("127.0.0.1:0")?);
            /// let address = listener.local_addr()?.socket_addr().expect("an address of TCP");
            ///
            /// let stream = AnyStream::from(OwnedFd::from(TcpStream::connect(address)?));
            /// assert_eq!(stream.peer_addr()?.socket_addr(), Some(address));
            /// assert_ne!(stream.local_addr()?.socket_addr(), Some(address));
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// Those of getsockname(2).
            pub fn local_addr(&self) -> io::Result<PeerAddr> {
                match self {
                    Self::Tcp(socket) => socket.local_addr().map(of_ip),
                    Self::Unix(socket) => socket.local_addr().map(PeerAddr::Unix),
                }
            }
        }

        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                match self {
                    Self::Tcp(socket) => socket.as_fd(),
                    Self::Unix(socket) => socket.as_fd(),
                }
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        impl From<$type> for OwnedFd {
            fn from(socket: $type) -> Self {
                match socket {
                    $type::Tcp(socket) => socket.into(),
                    $type::Unix(socket) => socket.into(),
                }
            }
        }
    };
}

either!(AnyListener);
either!(AnyStream);

impl Read for AnyStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_vectored(bufs),
            Self::Unix(stream) => stream.read_vectored(bufs),
        }
    }
}

impl Write for AnyStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(bufs),
            Self::Unix(stream) => stream.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
