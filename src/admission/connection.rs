//! A connection and its permit, kept together.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::permit::Permit;

/// An accepted connection and its permit.
///
/// It dereferences to the stream, and implements `Read` and `Write` if the stream does. Dropping it closes the stream
/// first and releases the permit second, so that the next connection finds a free descriptor.
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use std::os::unix::net::UnixStream;
/// use epoll_acceptor::{Connection, Gate};
///
/// # fn main() -> std::io::Result<()> {
/// let gate = Gate::new(1);
/// let (stream, mut client) = UnixStream::pair()?;
/// let mut connection = Connection::new(stream, gate.try_acquire().unwrap());
/// connection.write_all(b"hello\n")?; // as the stream itself
/// client.write_all(b"hello yourself\n")?;
///
/// let mut reader = connection.map(BufReader::new); // the permit goes with it
/// let mut line = String::new();
/// reader.read_line(&mut line)?;
/// assert_eq!(gate.in_use(), 1);
/// drop(reader); // closed, then released
/// assert_eq!(gate.in_use(), 0);
/// # Ok(())
/// # }
/// ```
///
/// ## Wrapping the stream
///
/// [`map`](Self::map) and [`try_map`](Self::try_map) keep the permit with whatever the stream becomes (a TLS session, a
/// buffered reader, a runtime's stream). [`into_parts`](Self::into_parts) and `Into<OwnedFd>` take the two apart; drop
/// the permit last: if it is released before the close, the next accept may find no free descriptor.
///
/// ## `try_clone` escapes the limit
///
/// The limit counts permits, not descriptors. A stream cloned with the stream's own `try_clone`, or inherited by a
/// forked child, outlives its permit.
#[must_use = "a connection that is dropped is closed"]
pub struct Connection<S, P = Permit> {
    // Dropped in this order: closed first, released second.
    stream: S,
    permit: P,
    peer: Option<SocketAddr>,
}

impl<S, P> Connection<S, P> {
    /// Puts a stream and a permit together.
    pub const fn new(stream: S, permit: P) -> Self {
        Self { stream, permit, peer: None }
    }

    #[inline]
    pub(crate) const fn with_peer(mut self, peer: Option<SocketAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// Returns the peer's address, if the acceptor was built [`with_peer`](crate::Builder::with_peer). The address is
    /// known even if the connection was reset and getpeername(2) fails.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Changes the stream, and keeps the permit.
    ///
    /// ```
    /// use epoll_acceptor::{Connection, Gate};
    ///
    /// let connection = Connection::new("plain", Gate::new(1).try_acquire().unwrap());
    /// let longer: Connection<String> = connection.map(String::from);
    /// assert_eq!(&*longer, "plain");
    /// ```
    pub fn map<T>(self, change: impl FnOnce(S) -> T) -> Connection<T, P> {
        let Self { stream, permit, peer } = self;
        Connection { stream: change(stream), permit, peer }
    }

    /// Changes the stream, and keeps the permit; on an error the permit is released.
    ///
    /// # Errors
    ///
    /// The error of `change`.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use epoll_acceptor::{Connection, Gate};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let gate = Gate::new(1);
    /// let connection = Connection::new(UnixStream::pair()?.0, gate.try_acquire().unwrap());
    /// let connection = connection.try_map(|stream| stream.set_nonblocking(true).map(|()| stream))?;
    ///
    /// let (stream, permit) = connection.into_parts();
    /// drop(stream);
    /// drop(permit);
    /// assert_eq!(gate.in_use(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<Connection<T, P>, E> {
        let Self { stream, permit, peer } = self;
        // On an error `change` has dropped the stream; the permit follows when this function returns.
        change(stream).map(|stream| Connection { stream, permit, peer })
    }

    /// Changes the permit, for example to one that holds something else to be dropped after the close.
    ///
    /// ```
    /// use epoll_acceptor::{Connection, Gate};
    ///
    /// let gate = Gate::new(1_000);
    /// let connection = Connection::new("stream", gate.try_acquire().unwrap());
    /// let connection = connection.map_permit(|permit| (permit, "another guard"));
    /// assert_eq!(gate.in_use(), 1);
    /// drop(connection);
    /// assert_eq!(gate.in_use(), 0);
    /// ```
    #[inline]
    pub fn map_permit<Q>(self, change: impl FnOnce(P) -> Q) -> Connection<S, Q> {
        let Self { permit, stream, peer } = self;
        Connection { permit: change(permit), stream, peer }
    }

    /// Returns the permit.
    #[must_use]
    pub const fn permit(&self) -> &P {
        &self.permit
    }

    /// Takes the stream and its permit apart. Drop the stream first.
    #[must_use = "a stream that is dropped is closed, a permit that is dropped is released"]
    pub fn into_parts(self) -> (S, P) {
        (self.stream, self.permit)
    }
}

/// Releases the permit and keeps the descriptor open.
impl<S: Into<Self>, P> From<Connection<S, P>> for OwnedFd {
    fn from(connection: Connection<S, P>) -> Self {
        connection.stream.into()
    }
}

impl<S: AsRawFd, P> AsRawFd for Connection<S, P> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl<S, P> Deref for Connection<S, P> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stream
    }
}

impl<S, P> DerefMut for Connection<S, P> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsFd, P> AsFd for Connection<S, P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: Read, P> Read for Connection<S, P> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.stream.read_vectored(bufs)
    }
}

impl<S: Write, P> Write for Connection<S, P> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Connection<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}
