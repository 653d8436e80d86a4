// Of two definitions of a link the first one counts: here those for this page, in the README those for the repository.
#![cfg_attr(any(doc, doctest), doc = include_str!("guide/links.md"))]
#![cfg_attr(any(doc, doctest), doc = include_str!("guide/pictures.md"))]
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
//! * [`guide`]: how to do something, and what it rests on.
//!
//! # Traps
//!
//! What no type can prevent. Each is told in full where the link leads.
//!
//! ## In your loop
//!
//! * **An event that is answered by nothing.** Every event with the acceptor's token wants one pass
//!   ([`Acceptor::ready`] or [`Acceptor::drain`]) after the wait that returned it. An edge-triggered event that is
//!   thrown away is not repeated.
//! * **A batch left half read.** [`Events`] keeps what was not read, and the next wait on it hands that out first.
//!   Events dropped with their buffer, or forgotten by [`Events::clear`], are gone.
//! * **A host that watches an epoll** by its edges, and sleeps without a last look:
//!   [the trap of an edge-triggered host](hosted#the-trap-of-an-edge-triggered-host). [`Hosted`] looks, for any host.
//! * **An acceptor that is forgotten** ([`std::mem::forget`]) stays registered. It keeps the place that was handed to
//!   it from the others.
//! * **An owner that does not answer its events** keeps such a place, too.
//!
//! ## At the limit, and out of descriptors
//!
//! * **The limit counts permits.** A stream that was cloned, or inherited by a forked child, lives on when its permit
//!   is back.
//! * **Without a gate only the timer wakes** an acceptor that is out of descriptors (10 ms, doubling to 200 ms). With
//!   one, each place given back does: [`Gate`].
//! * **Who waits must fit into the backlog.** A gate that pauses leaves newcomers to the kernel's queue, and std's
//!   `bind` gives TCP listeners a backlog of 128. What does not fit is dropped, and tries again after a second
//!   ([more](guide::overload#a-backlog-that-is-too-short)).
//!
//! ## The end of a listener
//!
//! * **Dropping an acceptor resets its queue.** Take the listener out ([`EpollAcceptor::into_listener`]), or
//!   [wind it down](EpollAcceptor::wind_down).
//! * **A Unix listener that was shut down while its acceptor is full.** Nobody can tell whether anything is queued
//!   without accepting it: the owner is told when a place is free.
//!
//! ## More than one process
//!
//! * **Register after the last fork.** A forked child shares the epoll and its registrations: [`EpollAcceptor`].
//! * **Non-blocking is for everyone.** Registering a listener makes it non-blocking for all who hold a duplicate of it,
//!   and whoever of them clears the flag makes the accept of everyone else block: `O_NONBLOCK` belongs to the open
//!   socket.
//! * **A worker that is killed announces nothing.** What an [`Exclusive`](struct@Exclusive) acceptor was told of waits
//!   for the next arrival. One that is merely busy keeps what it has left in the queue until it waits again.
//! * **A stranger who deletes or modifies the acceptor's registration.** It comes back with the next re-arm, which a
//!   level-triggered acceptor that is awake has no reason for.
//!
//! A kernel, or a filter in front of it, that answers every accept with an error and consumes nothing is taken for one
//! that is out of descriptors, after 64 errors in a row.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(doc, doctest))]
pub mod guide;
pub mod hosted;
pub mod linux;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
pub mod drain;
pub mod admission;

#[doc(inline)]
pub use admission::{
    Admission, AllowedUsers, Both, Cause, Connection, ConnectionInfo, Credentials, Gate, Line, PeerLimit,
    PeerPermit, Permit, QueueDelay, RateLimit, Refusal, Rejection, Reserve, Unlimited, Until, WhenFull,
};
#[doc(inline)]
pub use drain::{
    Acceptor, Control, Counters, EdgeTriggered, EmptyCheck, Errno, ErrnoClass, Exclusive, Histogram, Intake,
    LevelTriggered, ListenerClosed, Pending, Ready, ShutdownReport, State, Strategy, Trigger, UnknownTrigger,
};
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[doc(inline)]
pub use hosted::{AsyncAcceptor, AsyncWindingDown, IntoTokio};
#[doc(inline)]
pub use hosted::{Hosted, Progress};
#[cfg(feature = "group")]
#[cfg_attr(docsrs, doc(cfg(feature = "group")))]
#[doc(inline)]
pub use linux::group::{self, Group};
#[cfg(feature = "handover")]
#[cfg_attr(docsrs, doc(cfg(feature = "handover")))]
#[doc(inline)]
pub use linux::handover;
#[doc(inline)]
pub use linux::{
    AcceptError, AcceptFlags, AcceptQueue, AddError, AnyListener, BuildError, BuildErrorKind, Builder,
    BusyPoll, Epoll, EpollAcceptor, EpollCtlError, Event, Events, ExclusiveInterest, Interest, Listener,
    PeerAddr, Registration, SignalMask, Token, WaitResult, Waker, WindingDown, accept, accept_queue,
    accept_with_peer, has_pending, time_queued,
};
