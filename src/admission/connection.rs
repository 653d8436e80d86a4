//! A connection and its place, kept together.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};

use super::gate::Permit;

/// An accepted connection together with the permit for its place.
///
/// Use it as the stream it wraps: it dereferences to it, and reads and writes where the stream does. Dropping
/// it closes the stream first and gives the permit back second, so that whoever is let in next finds the
/// descriptor free.
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
/// let mut reader = connection.map(BufReader::new); // the place goes with it
/// let mut line = String::new();
/// reader.read_line(&mut line)?;
/// assert_eq!(gate.in_use(), 1);
/// drop(reader); // closed, and then given back
/// assert_eq!(gate.in_use(), 0);
/// # Ok(())
/// # }
/// ```
///
/// ## Wrapping the stream in something else
///
/// [`map`](Self::map) and [`try_map`](Self::try_map) keep the permit with whatever the stream becomes (a TLS
/// session, a buffered reader, a runtime's stream). [`into_parts`](Self::into_parts) takes the two apart; from
/// then on the order of closing is the caller's: a permit given back a moment before the close may cost the
/// next connection one failed accept for want of a descriptor, and no more.
///
/// ## `try_clone` escapes the limit
///
/// The limit counts permits, not descriptors. A stream cloned with the stream's own `try_clone`, or inherited
/// by a forked child, lives on after the permit was given back.
#[must_use = "a connection that is dropped is closed"]
pub struct Connection<S, P = Permit> {
    // Dropped in this order: closed first, given back second.
    stream: S,
    permit: P,
}

impl<S, P> Connection<S, P> {
    /// Puts a stream and a permit together.
    pub const fn new(stream: S, permit: P) -> Self {
        Self { stream, permit }
    }

    /// The stream becomes something else, and keeps its permit.
    ///
    /// ```
    /// use epoll_acceptor::{Connection, Gate};
    ///
    /// let connection = Connection::new("plain", Gate::new(1).try_acquire().unwrap());
    /// let longer: Connection<String> = connection.map(String::from);
    /// assert_eq!(&*longer, "plain");
    /// ```
    pub fn map<T>(self, change: impl FnOnce(S) -> T) -> Connection<T, P> {
        let Self { stream, permit } = self;
        Connection { stream: change(stream), permit }
    }

    /// The stream becomes something else, or an error; then the permit is given back.
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
    /// let (stream, place) = connection.into_parts();
    /// drop(stream);
    /// drop(place);
    /// assert_eq!(gate.in_use(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<Connection<T, P>, E> {
        let Self { stream, permit } = self;
        // On an error `change` has dropped the stream by now; the permit goes when this function ends.
        change(stream).map(|stream| Connection { stream, permit })
    }

    /// The permit becomes something else that holds it: one of another type, or with something beside it that is to be
    /// dropped when the stream has been closed.
    ///
    /// ```
    /// use epoll_acceptor::{Connection, Gate};
    ///
    /// let (all, tls) = (Gate::new(1_000), Gate::new(50));
    /// let connection = Connection::new("stream", all.try_acquire().unwrap());
    /// let handshake = tls.try_acquire().unwrap();
    /// let connection = connection.map_permit(|place| (place, handshake));
    /// assert_eq!(tls.in_use(), 1);
    /// drop(connection);
    /// assert_eq!((all.in_use(), tls.in_use()), (0, 0));
    /// ```
    pub fn map_permit<Q>(self, change: impl FnOnce(P) -> Q) -> Connection<S, Q> {
        let Self { permit, stream } = self;
        Connection { permit: change(permit), stream }
    }

    /// The permit.
    #[must_use]
    pub const fn permit(&self) -> &P {
        &self.permit
    }

    /// Takes the stream and its permit apart. Drop the stream first.
    #[must_use = "what is dropped is closed, and its place given back"]
    pub fn into_parts(self) -> (S, P) {
        (self.stream, self.permit)
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
