//! The user data of a registration.

/// The 64 bits of user data of a registration, returned with each of its events (`epoll_data_t`).
///
/// Neither the kernel nor this crate interprets the bits. Tokens need not be unique, but the events of descriptors
/// with the same token cannot be told apart.
///
/// ```
/// use epoll_acceptor::Token;
///
/// const LISTENER: Token = Token(0);
/// assert!(matches!(Token(0), LISTENER));
/// ```
///
/// ## Stale events
///
/// An [`Events`](super::events::Events) buffer may hold events of a descriptor that was deleted after the wait. If you
/// reuse a token for another descriptor, store a generation in some of its bits and compare it.
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
