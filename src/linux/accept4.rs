//! Accepting one connection: `accept4` and its errors.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use thiserror::Error;

use super::peer::PeerAddr;
use super::sys::{self, RawAddress};
use crate::drain::errno::{Errno, ErrnoClass};

/// The flags of the accepted socket: by default non-blocking and close-on-exec.
///
/// Linux does not copy these flags from the listener.
///
/// ```
/// use epoll_acceptor::socket::AcceptFlags;
///
/// let flags = AcceptFlags::default().blocking();
/// assert_eq!(format!("{flags:?}"), "SOCK_CLOEXEC");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct AcceptFlags {
    blocking: bool,
    inheritable: bool,
}

impl AcceptFlags {
    /// Clears `SOCK_NONBLOCK`: the accepted socket blocks.
    pub const fn blocking(self) -> Self {
        Self { blocking: true, ..self }
    }

    /// Clears `SOCK_CLOEXEC`: the accepted socket stays open across execve(2).
    pub const fn inheritable(self) -> Self {
        Self { inheritable: true, ..self }
    }

    const fn bits(self) -> c_int {
        let nonblock = if self.blocking { 0 } else { libc::SOCK_NONBLOCK };
        let cloexec = if self.inheritable { 0 } else { libc::SOCK_CLOEXEC };
        nonblock | cloexec
    }
}

/// Prints the kernel's names: `SOCK_NONBLOCK | SOCK_CLOEXEC`.
impl fmt::Debug for AcceptFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.blocking, self.inheritable) {
            (false, false) => "SOCK_NONBLOCK | SOCK_CLOEXEC",
            (false, true) => "SOCK_NONBLOCK",
            (true, false) => "SOCK_CLOEXEC",
            (true, true) => "0",
        })
    }
}

/// `accept4(listener, NULL, NULL, flags)`—Accepts the oldest connection in the accept queue.
///
/// Works for every listening socket: TCP, MPTCP, Unix `SOCK_STREAM` and `SOCK_SEQPACKET`.
///
/// Without an address buffer the call is faster, and it cannot fail after the kernel has removed the connection from
/// the queue. A connection that was reset in the queue is accepted like any other; its first read returns the error.
/// See [accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::socket::{AcceptFlags, ErrnoClass, accept};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// listener.set_nonblocking(true)?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
///
/// let stream = TcpStream::from(accept(&listener, AcceptFlags::default())?);
/// assert_eq!(stream.peer_addr()?, client.local_addr()?);
/// assert_eq!(accept(&listener, AcceptFlags::default()).unwrap_err().class(), ErrnoClass::Empty);
/// # Ok(())
/// # }
/// ```
///
/// ## Blocking
///
/// `flags` apply to the accepted socket. The listener's own `O_NONBLOCK` decides whether this call blocks; all
/// duplicates of the listener share that flag, also in other processes.
///
/// ## Cost of an empty queue
///
/// Linux allocates the descriptor, the inode and the file before it checks the queue, so an `EAGAIN` costs more
/// than a success. [`has_pending`](super::queue::has_pending) is the cheaper check. For the same reason
/// `EMFILE` does not mean that a connection is pending.
///
/// # Errors
///
/// [`AcceptError::class`] tells what the error did to the queue and what to do next.
#[doc(alias = "accept4")]
pub fn accept(listener: &(impl AsFd + ?Sized), flags: AcceptFlags) -> Result<OwnedFd, AcceptError> {
    sys::accept4(listener.as_fd(), flags.bits()).map_err(AcceptError)
}

/// `accept4(listener, addr, …, flags)`—Accepts the oldest connection in the accept queue, with its peer's address.
///
/// The address is valid even if the connection was reset in the queue; `getpeername` returns `ENOTCONN` then. See
/// [accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::socket::{AcceptFlags, accept_with_peer};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let (_socket, peer) = accept_with_peer(&listener, AcceptFlags::default())?;
/// assert_eq!(peer.socket_addr(), Some(client.local_addr()?));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`accept`].
#[doc(alias = "accept4")]
pub fn accept_with_peer(
    listener: &(impl AsFd + ?Sized),
    flags: AcceptFlags,
) -> Result<(OwnedFd, PeerAddr), AcceptError> {
    let mut address = RawAddress::new();
    let socket = sys::accept4_with_peer(listener.as_fd(), flags.bits(), &mut address).map_err(AcceptError)?;
    Ok((socket, PeerAddr::from_bytes(address.as_bytes())))
}

/// The error of [`accept`] and [`accept_with_peer`]. Its message names the remedy.
///
/// Converts to the [`io::Error`] of its errno: `EAGAIN` to [`WouldBlock`](io::ErrorKind::WouldBlock).
///
/// An accept loop handles the five classes like this:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::net::TcpListener;
/// use epoll_acceptor::socket::{AcceptFlags, ErrnoClass, accept};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// listener.set_nonblocking(true)?;
/// loop {
///     match accept(&listener, AcceptFlags::default()) {
///         Ok(_socket) => {}
///         Err(error) => match error.class() {
///             ErrnoClass::Consumed | ErrnoClass::Interrupted => {} // retry
///             ErrnoClass::Empty => break, // wait for readiness
///             ErrnoClass::Resource => break, // back off, then retry on a timer
///             ErrnoClass::Fatal => return Err(error.into()),
///         },
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("cannot accept a connection: {} ({:?}); {}", self.meaning(), .0, self.remedy())]
pub struct AcceptError(Errno);

impl AcceptError {
    /// Returns what the error did to the accept queue.
    #[must_use]
    pub const fn class(&self) -> ErrnoClass {
        self.0.class()
    }

    /// Returns the kernel's error number.
    #[must_use]
    pub const fn raw_os_error(&self) -> i32 {
        self.0.number()
    }

    /// Returns the kind of the [`io::Error`] that this error converts to.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        io::Error::from(*self).kind()
    }

    const fn meaning(&self) -> &'static str {
        match (self.raw_os_error(), self.class()) {
            (libc::EMFILE, _) => "the process has reached RLIMIT_NOFILE",
            (libc::ENFILE, _) => "the system has reached fs.file-max",
            (libc::EPERM | libc::EACCES, _) => "a firewall rule or a security module forbids it",
            (_, ErrnoClass::Consumed) => "the oldest connection failed before it was accepted",
            (_, ErrnoClass::Empty) => "the accept queue is empty",
            (_, ErrnoClass::Interrupted) => "a signal interrupted the call",
            (_, ErrnoClass::Resource) => "the kernel lacks a resource",
            (_, ErrnoClass::Fatal) => "the descriptor is not a listening socket",
        }
    }

    const fn remedy(&self) -> &'static str {
        match self.class() {
            ErrnoClass::Consumed => "accept the next connection",
            ErrnoClass::Empty => "wait until the listener is readable",
            ErrnoClass::Interrupted => "retry",
            ErrnoClass::Resource => {
                "the queue is unchanged: free descriptors or memory, then retry after a delay"
            }
            ErrnoClass::Fatal => "stop accepting on it",
        }
    }
}

impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        error.0.into()
    }
}
