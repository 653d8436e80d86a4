//! How a connection that may not come in is told, and why it may not.

use std::fmt;
use std::sync::Arc;

/// What becomes of a connection that is taken from the queue and not let in.
///
/// None of them blocks.
///
/// ## A client that goes on sending
///
/// Whatever reaches this side after the close is answered by a reset, as is a close with more unread than 64 KiB: then
/// a client may find the reset before it has read the end, or the last word. To hear everyone out would be to serve
/// them.
///
/// # References
///
/// [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html), `SO_LINGER`
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Closed: the client reads end of file. What it has sent by then is thrown away, up to 64 KiB or 16
    /// messages. This side keeps a TIME_WAIT entry for a while.
    Close,
    /// Reset: the client's next call fails with ECONNRESET, and no TIME_WAIT is kept. On Unix sockets, a
    /// plain close.
    Reset,
    /// Some last bytes, sent without blocking, and then closed as by [`Refusal::Close`] so that the client can read
    /// them. What does not fit into the socket's send buffer at once is not sent.
    Message(Arc<[u8]>),
}

impl Refusal {
    /// A last word.
    ///
    /// ```
    /// use epoll_acceptor::{Gate, Refusal, WhenFull};
    ///
    /// let busy = Refusal::message("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    /// let gate = Gate::new(10_000).when_full(WhenFull::Shed(busy));
    /// ```
    #[must_use]
    pub fn message(words: impl AsRef<[u8]>) -> Self {
        Self::Message(words.as_ref().into())
    }
}

/// `Message("-ERR\r\n")`, and so on.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close => f.write_str("Close"),
            Self::Reset => f.write_str("Reset"),
            Self::Message(words) => write!(f, "Message(\"{}\")", words.escape_ascii()),
        }
    }
}

/// Why a connection was refused; each has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The connection limit was reached.
    Full,
    /// Its peer has as many connections as one may have.
    Peer,
    /// They come faster than they may.
    Rate,
    /// It was queued for too long.
    Delay,
    /// Its peer is nobody who may connect.
    Credentials,
    /// Descriptors have run out, and it was taken with the one kept in reserve.
    OutOfDescriptors,
    /// Its listener is being wound down.
    Closing,
    /// Any other reason of a policy, or a policy that panicked.
    Policy,
}

/// A refusal and its cause.
///
/// ```
/// use epoll_acceptor::{Cause, Rejection, Refusal};
///
/// let full = Rejection::new(Cause::Full, Refusal::Reset);
/// assert_eq!(Rejection::from(Refusal::Reset).cause, Cause::Policy, "unless said otherwise");
/// # let _ = full;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// Under which cause it is counted.
    pub cause: Cause,
    /// How the client is told.
    pub refusal: Refusal,
}

impl Rejection {
    /// Puts the two together.
    #[must_use]
    pub const fn new(cause: Cause, refusal: Refusal) -> Self {
        Self { cause, refusal }
    }
}

/// With [`Cause::Policy`].
impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::new(Cause::Policy, refusal)
    }
}
