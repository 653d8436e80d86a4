//! How a connection that may not come in is told.

use std::sync::Arc;

/// What becomes of a connection that is taken from the queue and not let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Closed: the client reads end of file. This side keeps a TIME_WAIT entry for a while.
    Close,
    /// Reset: the client's next call fails with ECONNRESET, and no TIME_WAIT is kept. On Unix sockets, as
    /// [`Refusal::Close`].
    Reset,
    /// Some last bytes, sent without blocking, and then closed so that the client can read them. What does not
    /// fit into the socket's send buffer at once is not sent.
    LastWord(Arc<[u8]>),
}

impl Refusal {
    /// A last word.
    ///
    /// ```
    /// use epoll_acceptor::{Gate, Refusal, WhenFull};
    ///
    /// let busy = Refusal::last_word("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    /// let gate = Gate::new(10_000).when_full(WhenFull::Shed(busy));
    /// ```
    #[must_use]
    pub fn last_word(words: impl AsRef<[u8]>) -> Self {
        Self::LastWord(words.as_ref().into())
    }
}
