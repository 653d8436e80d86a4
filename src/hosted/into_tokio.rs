//! Streams that become tokio streams.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

/// A stream that becomes a tokio stream. Implemented for std's.
///
/// For the stream of a [`Listener`](crate::socket::Listener) of your own:
///
/// ```
/// use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
/// use epoll_acceptor::acceptor::IntoTokio;
///
/// struct Stream(std::net::TcpStream);
///
/// impl From<OwnedFd> for Stream {
///     fn from(fd: OwnedFd) -> Self {
///         Self(fd.into())
///     }
/// }
///
/// impl AsFd for Stream {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl IntoTokio for Stream {
///     type Stream = tokio::net::TcpStream;
///
///     fn into_tokio(self) -> std::io::Result<Self::Stream> {
///         self.0.set_nodelay(true)?;
///         self.0.into_tokio()
///     }
/// }
/// ```
pub trait IntoTokio {
    /// The tokio stream.
    type Stream;

    /// Registers it with the runtime. It is non-blocking already.
    ///
    /// # Errors
    ///
    /// Those of the registration with the runtime's epoll; then the stream is closed.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    fn into_tokio(self) -> io::Result<Self::Stream>;
}

impl IntoTokio for TcpStream {
    type Stream = tokio::net::TcpStream;

    fn into_tokio(self) -> io::Result<Self::Stream> {
        Self::Stream::from_std(self)
    }
}

impl IntoTokio for UnixStream {
    type Stream = tokio::net::UnixStream;

    fn into_tokio(self) -> io::Result<Self::Stream> {
        Self::Stream::from_std(self)
    }
}
