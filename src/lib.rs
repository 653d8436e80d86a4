// A link may be defined twice; the first definition wins. These are for rustdoc, those in the README for the
// repository.
#![cfg_attr(any(doc, doctest), doc = include_str!("guide/links.md"))]
#![cfg_attr(any(doc, doctest), doc = include_str!("guide/pictures.md"))]
// The README's examples need the feature.
#![cfg_attr(any(not(doctest), feature = "axum08"), doc = include_str!("../README.md"))]
//!
//! # Traps
//!
//! Mistakes that no type can prevent. The links lead to the details.
//!
//! ## In your loop
//!
//! * **An event without a pass.** For every event that carries the acceptor's token, begin one pass
//!   ([`Acceptor::ready`] or [`Acceptor::drain`]). An edge-triggered event that is discarded is not repeated.
//! * **Unread events.** The next wait with the same [`Events`] returns them first. Dropping the buffer, or
//!   [`Events::clear`], loses them.
//! * **An event loop that watches an inner epoll edge-triggered** must poll the inner epoll until it returns no event,
//!   and only then block. [`Hosted`] does that.
//! * **A forgotten acceptor** ([`std::mem::forget`]) stays registered, and keeps a permit that was handed to it.
//!
//! ## At the limit, and out of descriptors
//!
//! * **The limit counts permits.** A stream that was cloned, or inherited by a forked child, outlives its permit.
//! * **Without a gate only the timer causes a retry** after EMFILE. With a gate, so does a released permit:
//!   [`State::Exhausted`].
//! * **The backlog must hold what waits.** With [`WhenFull::Wait`], further connections wait in the kernel's queue, and
//!   std's `bind` gives TCP listeners a backlog of 128. What does not fit is dropped, and its client retries after a
//!   second: [`Builder::backlog`].
//!
//! ## Filters
//!
//! * **An address is not a client** (NAT, IPv6 prefixes, proxies), and attackers can fill the table of a [`PeerLimit`].
//! * **The kernel measures queue time in ticks**, and not for Unix sockets: [`QueueDelay`].
//! * **Credentials are those of the connect**: [`AllowedUsers`].
//!
//! ## The end of a listener
//!
//! * **Dropping an acceptor resets its queue.** [Shut it down](Control::shutdown_gracefully), or take the listener out
//!   ([`EpollAcceptor::into_listener`]).
//! * **A Unix listener that was shut down while its acceptor is full.** Only an accept, which needs a permit, can show
//!   whether anything is queued: the owner learns of the shutdown when a permit is released.
//!
//! ## More than one process
//!
//! * **Register after the last fork.** A forked child shares the epoll and its registrations: [`EpollAcceptor`].
//! * **`O_NONBLOCK` belongs to the open socket.** Registering a listener makes it non-blocking for every holder of a
//!   duplicate, and a holder that clears the flag makes the accepts of every holder block.
//! * **A killed worker wakes no other.** If the kernel had woken an [`Exclusive`](struct@Exclusive) acceptor of the
//!   killed process, the connection waits until the next arrival.
//! * **Other code that deletes the acceptor's registration.** Only the next re-arm restores it, and a level-triggered
//!   acceptor that is listening does not re-arm.
//!
//! After 64 accepts in a row that are interrupted or aborted, or find nothing although poll(2) reports a connection (a
//! seccomp filter can cause that), the acceptor backs off as if out of descriptors.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("epoll-acceptor works on Linux only: epoll(7) exists nowhere else");

#[cfg(any(doc, doctest))]
pub mod guide;
mod hosted;
mod linux;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
mod drain;
mod admission;

pub use admission::allowed_networks::AllowedNetworks;
pub use admission::allowed_users::AllowedUsers;
pub use admission::connection::Connection;
pub use admission::filter::{Filter, filter_fn};
pub use admission::gate::{Gate, WhenFull};
pub use admission::peer_limit::PeerLimit;
pub use admission::permit::Permit;
pub use admission::queue_delay::QueueDelay;
pub use admission::rate_limit::RateLimit;
pub use admission::refusal::Refusal;
pub use drain::acceptor::Acceptor;
pub use drain::control::Control;
pub use drain::counters::Counters;
pub use drain::poller::Progress;
pub use drain::shutdown::{Pending, ShutdownReport};
pub use drain::state::{ListenerClosed, State};
pub use drain::trigger::{EdgeTriggered, Exclusive, LevelTriggered, Trigger};
pub use hosted::blocking::BlockingAcceptor;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use hosted::future::AsyncAcceptor;
pub use hosted::host::Hosted;
pub use linux::acceptor::EpollAcceptor;
pub use linux::builder::Builder;
pub use linux::epoll::Epoll;
pub use linux::events::{Event, Events};
pub use linux::interest::Interest;
pub use linux::token::Token;

/// The types that filters use, both yours and the ready-made ones.
///
/// [`Filter`] is the trait; [`RateLimit`], [`PeerLimit`], [`QueueDelay`], [`AllowedUsers`] and [`AllowedNetworks`] are
/// ready-made filters. Which one helps when: [the guide to overload](crate::guide::overload).
pub mod filter {
    pub use crate::admission::allowed_networks::InvalidNetwork;
    pub use crate::admission::clock::{Clock, Monotonic};
    pub use crate::admission::connection_info::{ConnectionInfo, Credentials, TestConnection};
    pub use crate::admission::filter::{FilterFn, Reservation};
    pub use crate::admission::peer_limit::{PeerLimitBuilder, PeerPermit};
    pub use crate::admission::queue_delay::QueueDelayBuilder;
    pub use crate::admission::rate_limit::{RateLimitBuilder, RatePermit};
    pub use crate::admission::refusal::{Cause, Rejection};
}

/// Wrappers of epoll and eventfd, usable without an acceptor, and the errors of registrations.
///
/// [`Epoll`], [`Events`] and [`Interest`] are at the root.
pub mod epoll {
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub use crate::linux::backend::EpollBackend;
    pub use crate::linux::epoll::WaitResult;
    pub use crate::linux::epoll_ctl_error::EpollCtlError;
    pub use crate::linux::interest::ExclusiveInterest;
    pub use crate::linux::registration::{AddError, Registration};
    #[cfg(feature = "signals")]
    #[cfg_attr(docsrs, doc(cfg(feature = "signals")))]
    pub use crate::linux::signal::SignalMask;
    pub use crate::linux::waker::Waker;
}

/// `accept4`, listeners, and queries of accept queues.
pub mod socket {
    pub use crate::drain::errno::{Errno, ErrnoClass};
    pub use crate::linux::accept4::{AcceptError, AcceptFlags, accept, accept_with_peer};
    pub use crate::linux::any::{AnyListener, AnyStream};
    pub use crate::linux::listener::Listener;
    pub use crate::linux::peer::PeerAddr;
    pub use crate::linux::queue::{AcceptQueue, accept_queue, has_pending, time_queued};
}

/// The parts of acceptors and gates that few programs name.
pub mod acceptor {
    pub use crate::admission::acquire::{Acquire, Idle};
    pub use crate::admission::gate::GateBuilder;
    pub use crate::admission::histogram::Histogram;
    pub use crate::drain::acceptor::Ready;
    pub use crate::drain::control::PauseGuard;
    pub use crate::drain::shutdown::Intake;
    pub use crate::drain::trigger::{EmptyCheck, UnknownTrigger};
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub use crate::hosted::any_stream::AsyncAnyStream;
    pub use crate::hosted::blocking::Incoming;
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub use crate::hosted::graceful::{GracefulConnection, SilentGuard};
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub use crate::hosted::into_tokio::IntoTokio;
    pub use crate::linux::builder::{BuildError, BuildErrorKind, NoGate};
}

#[cfg(feature = "group")]
#[cfg_attr(docsrs, doc(cfg(feature = "group")))]
pub use linux::group;
#[cfg(feature = "handover")]
#[cfg_attr(docsrs, doc(cfg(feature = "handover")))]
pub use linux::handover;
