//! Observing an accept queue: its length, its backlog, and the time in the queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::sys::{self, TCP_LISTEN, TcpInfo};

/// A snapshot of an accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// The number of connections in the queue.
    pub depth: u32,
    /// The effective backlog: the argument of listen(2), capped at `net.core.somaxconn` at the time of the call.
    ///
    /// `depth` can exceed it: Linux queues `backlog + 1` connections, and a second listen(2) with a smaller backlog
    /// drops none.
    pub backlog: u32,
}

/// `getsockopt(TCP_INFO)`—Returns the length and the backlog of the accept queue of a TCP or MPTCP listener.
///
/// Requires no privileges. Does not count incomplete handshakes. See
/// [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// assert_eq!(epoll_acceptor::socket::accept_queue(&listener)?.depth, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Unsupported`](io::ErrorKind::Unsupported) for a socket without `TCP_INFO`, such as a Unix socket, and on a kernel
/// that does not fill it in, such as gVisor;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if the socket is not listening.
#[doc(alias = "TCP_INFO")]
pub fn accept_queue(listener: &(impl AsFd + ?Sized)) -> io::Result<AcceptQueue> {
    let info = tcp_info(listener.as_fd())?;
    if info.state != TCP_LISTEN {
        return Err(invalid("the socket is not listening: call listen(2) first"));
    }
    if !info.reports_queue() {
        return Err(unsupported("the kernel does not report the accept queue: use `has_pending`"));
    }
    Ok(AcceptQueue { depth: info.unacked, backlog: info.sacked })
}

/// `poll(listener, POLLIN, 0)`—Returns `true` if the listener is readable: a connection is in the accept queue.
///
/// Works for every listening socket and costs a fraction of an `accept4` that returns `EAGAIN`. See
/// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::os::unix::net::{UnixListener, UnixStream};
/// # let folder = std::env::temp_dir().join(format!("has_pending-{}", std::process::id()));
/// # let path = folder.with_extension("socket");
///
/// let listener = UnixListener::bind(&path)?;
/// assert!(!epoll_acceptor::socket::has_pending(&listener)?);
/// let client = UnixStream::connect(&path)?;
/// assert!(epoll_acceptor::socket::has_pending(&listener)?);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
///
/// ## Closed listeners
///
/// A listener with a pending error and a Unix listener after `shutdown` are always readable: the next accept returns
/// the error. A TCP listener after `shutdown` is never readable.
///
/// # Errors
///
/// `ENOMEM`, or `EINTR` if a signal interrupts the call.
#[doc(alias = "poll")]
pub fn has_pending(listener: &(impl AsFd + ?Sized)) -> io::Result<bool> {
    Ok(sys::poll(listener.as_fd(), libc::POLLIN)? & libc::POLLIN != 0)
}

/// `getsockopt(TCP_INFO)`—Returns the time since a connection was established: right after the accept, its time in the
/// accept queue (the sojourn time of CoDel).
///
/// Works for TCP, and for MPTCP over IPv4. The resolution is one jiffy, 1 to 10 ms (`CONFIG_HZ`). See
/// [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html), `TCP_INFO`; K67 of [the kernel's
/// rules](crate::guide::kernel).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let (stream, _) = listener.accept()?;
/// assert!(epoll_acceptor::socket::time_queued(&stream)? < Duration::from_secs(60));
/// # Ok(())
/// # }
/// ```
///
/// ## Call it before the first write
///
/// The value is `tcpi_last_data_sent`, the time since the last send, which starts at the establishment. A write resets
/// it; data from the peer does not.
///
/// ## TCP Fast Open
///
/// The client's final ACK restarts the clock, so a client can shorten its apparent time in the queue.
///
/// # Errors
///
/// [`Unsupported`](io::ErrorKind::Unsupported) for a socket without `TCP_INFO`, such as a Unix socket, and on a kernel
/// that does not fill it in, such as gVisor;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a listener.
#[doc(alias = "tcpi_last_data_sent")]
pub fn time_queued(stream: &(impl AsFd + ?Sized)) -> io::Result<Duration> {
    let info = tcp_info(stream.as_fd())?;
    if info.state == TCP_LISTEN {
        return Err(invalid("the socket is a listener: pass a connection that was accepted from it"));
    }
    if !info.reports_times() {
        return Err(unsupported("the kernel does not report how long a connection was queued"));
    }
    Ok(Duration::from_millis(info.last_data_sent_ms.into()))
}

fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    sys::tcp_info(fd).map_err(|errno| match errno.number() {
        libc::EOPNOTSUPP | libc::ENOPROTOOPT => {
            unsupported("only TCP and MPTCP sockets have TCP_INFO: use `has_pending` for other listeners")
        }
        libc::ENOTSOCK => invalid("the descriptor is not a socket: pass a listening socket"),
        _ => errno.into(),
    })
}

fn unsupported(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, message)
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
