//! THE KERNEL: epoll, `accept4`, and what can be asked of a listening socket.
//!
//! [`Epoll`], [`Events`], [`Registration`], [`Waker`], [`accept`](accept()), [`accept_queue`] and their kin are wrappers
//! that can be used alone. [`EpollAcceptor`] is the [`Acceptor`](crate::drain::Acceptor) on a real listener;
//! [`Builder`] makes it.
//!
//! What Linux does, and how that is checked: [the kernel's rules](crate::guide::kernel).

// The only folder that knows `libc` and `nix`; the only unsafe code of the crate stands in its `sys`, one function a
// system call. Imports from `drain` and `admission` only, never from `sim` nor from the crate's root.

mod sys;
pub(crate) mod token;
pub(crate) mod interest;
pub(crate) mod control;
pub(crate) mod signal;
pub(crate) mod busy_poll;
pub(crate) mod events;
mod wait;
pub(crate) mod epoll;
pub(crate) mod registration;
pub(crate) mod waker;
pub(crate) mod peer;
pub(crate) mod accept4;
pub(crate) mod queue;
pub(crate) mod listener;
mod who;
mod hops;
mod port;
pub(crate) mod acceptor;
pub(crate) mod closing;
#[cfg(feature = "group")]
#[cfg_attr(docsrs, doc(cfg(feature = "group")))]
pub mod group;
#[cfg(feature = "handover")]
#[cfg_attr(docsrs, doc(cfg(feature = "handover")))]
pub mod handover;

pub use accept4::{AcceptError, AcceptFlags, accept, accept_with_peer};
pub use acceptor::{BuildError, BuildErrorKind, Builder, EpollAcceptor};
pub use busy_poll::BusyPoll;
pub use closing::WindingDown;
pub use control::EpollCtlError;
pub use epoll::{Epoll, WaitResult};
pub use events::{Event, Events};
pub use interest::{ExclusiveInterest, Interest};
pub use listener::{AnyListener, Listener};
pub use peer::PeerAddr;
#[cfg(feature = "sim")]
pub use port::EpollBackend;
pub use queue::{AcceptQueue, accept_queue, has_pending, time_queued};
pub use registration::{AddError, Registration};
pub use signal::SignalMask;
pub use token::Token;
pub use waker::Waker;
