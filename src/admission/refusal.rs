//! How and why connections are refused.

use std::fmt;
use std::sync::Arc;

/// The way in which an accepted connection is closed without being served. No variant blocks.
///
/// See [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html), `SO_LINGER`.
///
/// ## A client that keeps sending
///
/// Data that arrives after the close is answered by a reset, and a close with more than 64 KiB unread sends one. The
/// client may see the reset before it has read the end of the stream, or the message.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Closed: the client reads end of file. What it has sent by then is discarded, up to 64 KiB or 16
    /// messages. This side keeps a TIME_WAIT entry for a while.
    Close,
    /// Reset: the client's next call fails with ECONNRESET, and no TIME_WAIT is kept. On Unix sockets, a
    /// plain close.
    Reset,
    /// These bytes are sent without blocking, and then the connection is closed as by [`Refusal::Close`], so that the
    /// client can read them. What does not fit into the socket's send buffer at once is not sent.
    Message(Arc<[u8]>),
}

impl Refusal {
    /// Creates a refusal by a message.
    ///
    /// ```
    /// use epoll_acceptor::{Gate, Refusal, WhenFull};
    ///
    /// let busy = Refusal::message("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    /// let gate = Gate::builder(10_000).when_full(WhenFull::Shed(busy)).build();
    /// ```
    #[must_use]
    pub fn message(message: impl AsRef<[u8]>) -> Self {
        Self::Message(message.as_ref().into())
    }
}

/// `Message("-ERR\r\n")`, and so on.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close => f.write_str("Close"),
            Self::Reset => f.write_str("Reset"),
            Self::Message(bytes) => write!(f, "Message(\"{}\")", bytes.escape_ascii()),
        }
    }
}

/// The cause of a refusal; each cause has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The gate was full.
    Full,
    /// Its peer was at its limit.
    Peer,
    /// It exceeded the rate.
    Rate,
    /// It was queued for too long.
    Delay,
    /// Its peer is not an allowed user.
    Credentials,
    /// Its peer is not in an allowed network.
    Network,
    /// The process was out of descriptors, and the connection was accepted with the reserve descriptor.
    OutOfDescriptors,
    /// The listener is being shut down.
    Shutdown,
    /// A filter rejected it for another reason, or panicked.
    Filter,
}

/// The decision to refuse a connection: why, and how.
///
/// ```
/// use epoll_acceptor::Refusal;
/// use epoll_acceptor::filter::{Cause, Rejection};
///
/// assert_eq!(Rejection::reset(), Rejection::new(Cause::Filter, Refusal::Reset));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rejection {
    /// The cause under which it is counted.
    pub cause: Cause,
    /// How the connection is closed.
    pub refusal: Refusal,
}

impl Rejection {
    /// Creates a rejection.
    #[must_use]
    pub const fn new(cause: Cause, refusal: Refusal) -> Self {
        Self { cause, refusal }
    }

    /// Creates a rejection by a reset, with [`Cause::Filter`].
    #[must_use]
    pub const fn reset() -> Self {
        Self::new(Cause::Filter, Refusal::Reset)
    }

    /// Creates a rejection by a close, with [`Cause::Filter`].
    #[must_use]
    pub const fn close() -> Self {
        Self::new(Cause::Filter, Refusal::Close)
    }
}

/// With [`Cause::Filter`].
impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::new(Cause::Filter, refusal)
    }
}
