//! THE KERNEL: epoll, `accept4`, and what can be asked of a listening socket.
//!
//! The only folder that knows `libc` and `nix`; the only unsafe code of the crate stands in its `sys`, one
//! function a system call. Imports from `drain` and `admission` only, never from `sim` nor from the crate's
//! root.

mod sys;
pub mod token;
pub mod interest;
pub mod control;
pub mod signal;
pub mod busy_poll;
pub mod events;
mod wait;
pub mod epoll;
pub mod registration;
pub mod waker;
pub mod peer;
pub mod accept;
pub mod queue;
pub mod listener;
mod who;
mod port;
pub mod acceptor;
pub mod closing;
#[cfg(feature = "group")]
#[cfg_attr(docsrs, doc(cfg(feature = "group")))]
pub mod group;
#[cfg(feature = "handover")]
#[cfg_attr(docsrs, doc(cfg(feature = "handover")))]
pub mod handover;

pub use accept::{AcceptError, AcceptFlags, accept, accept_with_peer};
pub use acceptor::{Builder, EpollAcceptor, RegisterError, RegisterErrorKind};
pub use busy_poll::BusyPoll;
pub use closing::WindingDown;
pub use control::ControlError;
pub use epoll::{Epoll, Waited};
pub use events::{Event, Events};
pub use interest::{ExclusiveInterest, Interest};
pub use listener::{AnyListener, Listener};
pub use peer::PeerAddr;
#[cfg(feature = "sim")]
pub use port::Watched;
pub use queue::{AcceptQueue, accept_queue, is_waiting, time_queued};
pub use registration::{Registration, RegistrationError};
pub use signal::SignalMask;
pub use token::Token;
pub use waker::Waker;
