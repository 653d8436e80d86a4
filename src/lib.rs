#![doc = include_str!("../README.md")]
//!
//! # The modules
//!
//! * [`linux`]: the kernel. Wrappers that stand on their own, and acceptors on real listeners.
//! * [`drain`]: every decision of accepting, pure.
//! * [`admission`]: who may come in: the gate, permits, refusals.
//! * [`hosted`]: acceptors in event loops that watch descriptors, such as tokio's.
#![cfg_attr(feature = "sim", doc = "* [`sim`]: the pretended kernel, to test an accept policy on.")]
//!
//! # Traps
//!
//! ## An event that is answered by nothing
//!
//! Every event with the acceptor's token wants one pass ([`Acceptor::ready`] or [`Acceptor::drain`]) after the wait
//! that returned it. An edge-triggered event that is thrown away is not repeated.
//!
//! ## A batch left half read
//!
//! [`Events`] keeps what was not read, and the next wait on it hands that out first. Events dropped with their buffer,
//! or forgotten by [`Events::clear`], are gone.
//!
//! ## Non-blocking is for everyone
//!
//! Registering a listener makes it non-blocking for all who hold a duplicate of it, and whoever of them clears the flag
//! makes the accept of everyone else block: the flag belongs to the open socket.
//!
//! ## The limit counts permits
//!
//! A stream that was cloned, or inherited by a forked child, lives on when its permit is back.
//!
//! ## A host that watches an epoll
//!
//! An [`Epoll`] can itself be watched by another event loop. One that watches it edge-triggered (tokio's `AsyncFd`, mio,
//! async-io) must, after its last pass, wait on the inner epoll with timeout zero until that returns nothing, before it
//! goes to sleep: an item that is still linked in the inner epoll raises no further event outside. [`Hosted`] does it
//! for any host, and `AsyncAcceptor` (feature `tokio`) for tokio: see [`hosted`].
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod hosted;
pub mod linux;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
pub mod drain;
pub mod admission;

pub use admission::{
    Admission, AllowedPeers, Both, Cause, Connection, Credentials, Denied, Gate, Line, Newcomer, PeerLimit,
    PeerPermit, Permit, QueueDelay, RateLimit, Refusal, Reserve, Unlimited, Until, WhenFull,
};
pub use drain::{
    Acceptor, Barred, Class, Control, Counters, Dead, EdgeTriggered, Errno, Exclusive, Farewell, Histogram,
    LevelTriggered, Proof, Ready, Rest, State, Strategy, Trigger, UnknownTrigger,
};
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use hosted::{AsyncAcceptor, IntoTokio};
pub use hosted::{Hosted, Turn};
#[cfg(feature = "group")]
#[cfg_attr(docsrs, doc(cfg(feature = "group")))]
pub use linux::group::{self, Group};
#[cfg(feature = "handover")]
#[cfg_attr(docsrs, doc(cfg(feature = "handover")))]
pub use linux::handover;
pub use linux::{
    AcceptError, AcceptFlags, AcceptQueue, AnyListener, Builder, BusyPoll, ControlError, Epoll,
    EpollAcceptor, Event, Events, ExclusiveInterest, Interest, Listener, PeerAddr, RegisterError,
    RegisterErrorKind, Registration, RegistrationError, SignalMask, Token, Waited, Waker, WindingDown,
    accept, accept_queue, accept_with_peer, is_waiting, time_queued,
};
