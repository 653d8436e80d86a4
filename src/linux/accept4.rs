//! Taking one connection from a listener's queue.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use thiserror::Error;

use super::peer::PeerAddr;
use super::sys;
use crate::drain::errno::{Errno, ErrnoClass};

/// How the accepted socket is made: by default non-blocking and close-on-exec.
///
/// Nothing of this is inherited from the listener.
///
/// ```
/// use epoll_acceptor::AcceptFlags;
///
/// let for_a_thread = AcceptFlags::default().blocking();
/// assert_eq!(format!("{for_a_thread:?}"), "SOCK_CLOEXEC");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct AcceptFlags {
    blocking: bool,
    inheritable: bool,
}

impl AcceptFlags {
    /// The accepted socket blocks.
    pub const fn blocking(self) -> Self {
        Self { blocking: true, ..self }
    }

    /// The accepted socket stays open across execve(2).
    pub const fn inheritable(self) -> Self {
        Self { inheritable: true, ..self }
    }

    const fn bits(self) -> c_int {
        let nonblock = if self.blocking { 0 } else { libc::SOCK_NONBLOCK };
        let cloexec = if self.inheritable { 0 } else { libc::SOCK_CLOEXEC };
        nonblock | cloexec
    }
}

/// `SOCK_NONBLOCK | SOCK_CLOEXEC`, and so on.
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

/// `accept4(listener, NULL, NULL, flags)`—Takes the oldest connection from the queue.
///
/// Works for every socket that listens: TCP, MPTCP, Unix streams and sequenced packets.
///
/// Asks for no address: that is the faster call, and one that cannot fail after the connection has left the
/// queue. A connection that was reset while it waited comes like any other, and its first read tells.
///
/// ## A blocking listener blocks
///
/// The flags are those of the accepted socket. Whether this call waits is decided by the listener's own
/// `O_NONBLOCK`, which it shares with every duplicate of it, in other processes too.
///
/// ## An empty queue is the dearest answer
///
/// Linux makes the descriptor, the inode and the file before it looks at the queue: an accept that finds
/// nothing costs more than one that succeeds. [`has_pending`](super::queue::has_pending) looks for less; and
/// for the same reason EMFILE says nothing about whether a connection waits.
///
/// # Errors
///
/// The error's [`class`](AcceptError::class) says what it did to the queue, and so what to do next.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::{AcceptFlags, ErrnoClass, accept};
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
/// # References
///
/// [accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html)
#[doc(alias = "accept4")]
pub fn accept(listener: &(impl AsFd + ?Sized), flags: AcceptFlags) -> Result<OwnedFd, AcceptError> {
    sys::accept4(listener.as_fd(), flags.bits()).map_err(AcceptError)
}

/// `accept4(listener, addr, …, flags)`—Takes the oldest connection from the queue, and its peer's address.
///
/// The address is right even if the connection was reset while it waited; `getpeername` would fail then.
///
/// # Errors
///
/// As for [`accept`].
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::{AcceptFlags, accept_with_peer};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let (_socket, peer) = accept_with_peer(&listener, AcceptFlags::default())?;
/// assert_eq!(peer.socket_addr(), Some(client.local_addr()?));
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html)
#[doc(alias = "accept4")]
pub fn accept_with_peer(
    listener: &(impl AsFd + ?Sized),
    flags: AcceptFlags,
) -> Result<(OwnedFd, PeerAddr), AcceptError> {
    let (socket, address) = sys::accept4_with_peer(listener.as_fd(), flags.bits()).map_err(AcceptError)?;
    Ok((socket, PeerAddr::from_bytes(address.as_bytes())))
}

/// Why no connection was accepted, as a sentence that names the remedy.
///
/// Becomes the plain [`io::Error`] of its number, [`WouldBlock`](io::ErrorKind::WouldBlock) and all.
///
/// What to do next, in a loop of your own:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::net::TcpListener;
/// use epoll_acceptor::{AcceptFlags, ErrnoClass, accept};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// listener.set_nonblocking(true)?;
/// loop {
///     match accept(&listener, AcceptFlags::default()) {
///         Ok(_socket) => {}
///         Err(error) => match error.class() {
///             ErrnoClass::Consumed | ErrnoClass::Interrupted => {} // go on
///             ErrnoClass::Empty => break, // wait
///             ErrnoClass::Resource => break, // wait for a while, by a timer
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
    /// What the error did to the queue.
    #[must_use]
    pub const fn class(&self) -> ErrnoClass {
        self.0.class()
    }

    /// The kernel's error number.
    #[must_use]
    pub const fn raw_os_error(&self) -> i32 {
        self.0.number()
    }

    /// The kind that the [`io::Error`] will have.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        io::Error::from(*self).kind()
    }

    const fn meaning(&self) -> &'static str {
        match (self.raw_os_error(), self.class()) {
            (libc::EMFILE, _) => "this process has as many descriptors as RLIMIT_NOFILE allows",
            (libc::ENFILE, _) => "the system has as many open files as it allows",
            (libc::EPERM | libc::EACCES, _) => "a firewall or a security module forbids it",
            (_, ErrnoClass::Consumed) => "the oldest one failed before it was accepted",
            (_, ErrnoClass::Empty) => "none is waiting",
            (_, ErrnoClass::Interrupted) => "a signal came first",
            (_, ErrnoClass::Resource) => "the kernel could not",
            (_, ErrnoClass::Fatal) => "the descriptor is no socket that listens",
        }
    }

    const fn remedy(&self) -> &'static str {
        match self.class() {
            ErrnoClass::Consumed => "accept the next one",
            ErrnoClass::Empty => "wait until the listener is reported",
            ErrnoClass::Interrupted => "try again",
            ErrnoClass::Resource => "it is still queued: free some resources, and try again after a while",
            ErrnoClass::Fatal => "give this listener up",
        }
    }
}

impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        error.0.into()
    }
}
