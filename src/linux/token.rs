//! The name under which a descriptor is registered.

/// Comes back with every event of the descriptor that was registered under it.
///
/// The kernel keeps the 64 bits and never looks at them; nor does this crate. They need not be unique:
/// several descriptors may share one token, and then their events are told apart by nothing else.
///
/// ## Events of the past
///
/// A batch of events may hold some of a descriptor that was deleted after the batch was taken. Where a token
/// is reused for another descriptor, keep a generation in some of its bits and compare.
///
/// ```
/// use epoll_acceptor::Token;
///
/// const LISTENER: Token = Token(0);
/// assert!(matches!(Token(0), LISTENER));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl From<u64> for Token {
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}
