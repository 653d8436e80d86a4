//! What can be listened on, and what connections become.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// A listening socket that an acceptor can take over.
///
/// Implemented for the listeners of std, for `OwnedFd`, and through [`AnyListener`] for everything else that has
/// a descriptor. Implement it for your own type to choose what its connections become. `as_fd` must give the same
/// descriptor every time.
pub trait Listener: AsFd + Send + Sync {
    /// What an accepted connection becomes.
    type Stream: From<OwnedFd> + AsFd;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
}

impl Listener for OwnedFd {
    type Stream = Self;
}

/// Any listening socket at all; its connections are plain descriptors.
///
/// ```
/// use epoll_acceptor::{AnyListener, Epoll, LevelTriggered, Token};
/// use socket2::{Domain, Socket, Type};
///
/// # fn main() -> std::io::Result<()> {
/// let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
/// socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
/// socket.listen(1024)?;
/// let epoll = Epoll::new()?;
/// let acceptor = LevelTriggered::on(AnyListener(socket)).register(&epoll, Token(1))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnyListener<L>(pub L);

impl<L: AsFd> AsFd for AnyListener<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<L: AsFd + Send + Sync> Listener for AnyListener<L> {
    type Stream = OwnedFd;
}
