//! Acceptors in other event loops: on an epoll of their own, which the loop watches as one descriptor.
//!
//! An acceptor needs no epoll of its own where the loop's epoll is available as a descriptor: a hand-written one, mio's
//! `Registry`, polling's `Poller`. Register it there. Where the loop hides its epoll, [`Hosted`](host::Hosted) is one
//! descriptor for any loop, and `AsyncAcceptor` a future for tokio.
#![forbid(unsafe_code)]

pub(crate) mod host;
pub(crate) mod blocking;
#[cfg(feature = "tokio")]
pub(crate) mod into_tokio;
#[cfg(feature = "tokio")]
pub(crate) mod graceful;
#[cfg(feature = "tokio")]
pub(crate) mod future;
#[cfg(feature = "tokio")]
pub(crate) mod any_stream;
#[cfg(feature = "axum08")]
mod axum08;
#[cfg(feature = "tonic014")]
mod tonic014;
