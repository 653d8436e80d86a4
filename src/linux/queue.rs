//! What can be seen of an accept queue without taking anything from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::sys::{self, TCP_LISTEN, TcpInfo};

/// An accept queue at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many connections wait to be accepted.
    pub depth: u32,
    /// The backlog in force: what was given to listen(2), cut to `net.core.somaxconn` as it was then.
    ///
    /// Linux lets one connection more than that into the queue, and lowering the backlog throws none out: the
    /// depth may be above it.
    pub backlog: u32,
}

/// `getsockopt(TCP_INFO)`—How many connections wait, and how many may. Needs no privileges.
///
/// For TCP and MPTCP. Counts what can be accepted; a handshake that is not finished is not in it.
///
/// # Errors
///
/// [`Unsupported`](io::ErrorKind::Unsupported) for Unix sockets and whatever else has no `TCP_INFO`;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if the socket does not listen, or not any more.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// assert_eq!(epoll_acceptor::accept_queue(&listener)?.depth, 1);
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html)
#[doc(alias = "TCP_INFO")]
pub fn accept_queue(listener: &(impl AsFd + ?Sized)) -> io::Result<AcceptQueue> {
    let info = tcp_info(listener.as_fd())?;
    if info.state != TCP_LISTEN {
        return Err(invalid(
            "the socket is not listening and so has no accept queue: call listen(2) on it first",
        ));
    }
    Ok(AcceptQueue { depth: info.unacked, backlog: info.sacked })
}

/// `poll(listener, POLLIN, 0)`—Can a connection be accepted right now?
///
/// A small fraction of what an accept costs that finds nothing. For every socket that listens.
///
/// ## Not every "yes" is a connection
///
/// A listener that has failed, or a Unix listener that was shut down, is readable for ever: the accept tells.
/// A TCP listener that was shut down has nothing waiting, and never will.
///
/// # Errors
///
/// Out of memory (ENOMEM), or interrupted by a signal.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::os::unix::net::{UnixListener, UnixStream};
/// # let folder = std::env::temp_dir().join(format!("has_pending-{}", std::process::id()));
/// # let path = folder.with_extension("socket");
///
/// let listener = UnixListener::bind(&path)?;
/// assert!(!epoll_acceptor::has_pending(&listener)?);
/// let client = UnixStream::connect(&path)?;
/// assert!(epoll_acceptor::has_pending(&listener)?);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html)
#[doc(alias = "poll")]
pub fn has_pending(listener: &(impl AsFd + ?Sized)) -> io::Result<bool> {
    Ok(sys::poll(listener.as_fd(), libc::POLLIN)? & libc::POLLIN != 0)
}

/// `getsockopt(TCP_INFO)`—How long ago an accepted connection was made: read right after the accept, the time
/// that it spent in the queue.
///
/// For TCP, and MPTCP over IPv4. The resolution is the kernel's tick, 1 to 10 ms (`CONFIG_HZ`).
///
/// ## Ask before anything is sent
///
/// The kernel's clock is "since anything was sent", and begins with the connection. From the first write on
/// it tells something else. What the peer sends does not disturb it.
///
/// ## Not with TCP Fast Open
///
/// There the clock starts again when the handshake is confirmed: a client can make its wait look short.
///
/// # Errors
///
/// [`Unsupported`](io::ErrorKind::Unsupported) for Unix sockets and whatever else has no `TCP_INFO`;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a listener.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let (stream, _) = listener.accept()?;
/// assert!(epoll_acceptor::time_queued(&stream)? < Duration::from_secs(60));
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html), `TCP_INFO`; K67 of
/// [the kernel's rules](crate::guide::kernel).
#[doc(alias = "tcpi_last_data_sent")]
pub fn time_queued(stream: &(impl AsFd + ?Sized)) -> io::Result<Duration> {
    let info = tcp_info(stream.as_fd())?;
    if info.state == TCP_LISTEN {
        return Err(invalid("a listener was never queued: ask the connection that was accepted from it"));
    }
    Ok(Duration::from_millis(info.last_data_sent_ms.into()))
}

fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    sys::tcp_info(fd).map_err(|errno| match errno.number() {
        libc::EOPNOTSUPP | libc::ENOPROTOOPT => io::Error::new(
            io::ErrorKind::Unsupported,
            "only TCP and MPTCP sockets tell about their accept queue: use `has_pending` for the others",
        ),
        libc::ENOTSOCK => invalid("the descriptor is no socket and so has no accept queue"),
        _ => errno.into(),
    })
}

fn invalid(sentence: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence)
}
