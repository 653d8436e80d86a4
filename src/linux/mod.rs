//! The kernel: epoll, `accept4`, listeners, and the acceptors on them.

// The only folder that knows `libc` and `nix`; the only unsafe code of the crate is in its `sys`, one function for each
// system call. Imports from `drain` and `admission` only.

mod sys;
pub(crate) mod token;
pub(crate) mod interest;
pub(crate) mod epoll_ctl_error;
#[cfg(feature = "signals")]
pub(crate) mod signal;
pub(crate) mod events;
mod wait;
pub(crate) mod epoll;
pub(crate) mod registration;
pub(crate) mod waker;
pub(crate) mod peer;
pub(crate) mod accept4;
pub(crate) mod queue;
pub(crate) mod listener;
pub(crate) mod any;
mod peer_info;
mod min_ttl;
pub(crate) mod backend;
pub(crate) mod builder;
pub(crate) mod acceptor;
#[cfg(feature = "group")]
pub mod group;
#[cfg(feature = "handover")]
pub mod handover;
