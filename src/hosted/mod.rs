//! Acceptors in other people's event loops: an epoll of their own, which the loop watches as one descriptor.
//!
//! An acceptor needs no host where the loop itself stands on an epoll that can be had as a descriptor
//! ([`AsFd`](std::os::fd::AsFd)): a hand-written one, mio's `Registry`, polling's `Poller`. Register it
//! there, under a token of the loop's, and begin a pass for every event that carries it.
//!
//! Where the loop hides its epoll, or where it does not take strangers' events, the acceptor gets an epoll of
//! its own, and the loop watches that: [`Hosted`]. For tokio there is `AsyncAcceptor` (feature `tokio`),
//! which is that and a future.
//!
//! # The trap of an edge-triggered host
//!
//! Hosts such as tokio's `AsyncFd`, mio and async-io are told of an edge, and sleep until the next. What is on the
//! inner epoll's ready list already raises none. So a host that answers an edge by one wait and one pass, and then
//! sleeps, leaves the rest of the queue to itself whenever a pass ends before the queue does: [the
//! guide](crate::guide::hosting#the-trap-of-an-edge-triggered-host) tells how that goes, and what was measured.
//!
//! The remedy is one rule: **before you sleep, wait on the inner epoll with timeout zero, after the last
//! pass, until it returns nothing.** In the order of things:
//!
//! 1. remember what the host has told (tokio's guard holds it),
//! 2. wait on the inner epoll with timeout zero,
//! 3. if it returned anything: a pass, and again from 1,
//! 4. if nothing: forget what was remembered in 1, and only that. An edge that came after 1 must survive.
//!
//! [`Hosted::turn`] is steps 2 and 3; [`Progress::Idle`] is its permission for step 4.
#![forbid(unsafe_code)]

mod turns;
mod host;
#[cfg(feature = "tokio")]
mod future;
#[cfg(feature = "tokio")]
mod ending;

#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use ending::AsyncWindingDown;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use future::{AsyncAcceptor, IntoTokio};
pub use host::Hosted;
pub use turns::Progress;
#[cfg(feature = "sim")]
pub use turns::Turns;
