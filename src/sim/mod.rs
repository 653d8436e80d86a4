//! The simulated kernel, and what is proved on it.
//!
//! Pure and deterministic: no descriptor, no clock, no thread. It implements the same trait as the real kernel,
//! [`Backend`], so that the acceptor that is explored is the one that runs in production. Not covered by semantic
//! versioning.
//!
//! # A run
//!
//! A [`Setup`] says what is built: the trigger, the budget, the gate, how many acceptors, how their owners leave the
//! loop. A [`Script`] says what the environment does and when: clients connect, close and reset, permits are released,
//! descriptors run out, another process accepts. [`run()`] plays both and checks
//! [the promises](crate::guide::promises); [`explore()`] plays every script up to a number of actions, the shortest
//! first.
//!
//! # Test your own filter or accept loop
//!
//! Implement [`PolicyFilter`] for a filter, or [`Subject`] and [`Factory`] for a loop:
//! [the guide to testing](crate::guide::testing). [`PolicyFilter::of`] makes the filter. This one has permits:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! use epoll_acceptor::filter::{Cause, Clock, Rejection, Reservation};
//! use epoll_acceptor::sim::{Action, GateMode, Policy, PolicyFilter, Real, Script, Setup, run_with};
//! use epoll_acceptor::{Filter, Gate, Refusal, Trigger};
//!
//! /// At most two connections; the others are refused.
//! #[derive(Clone)]
//! struct AtMostTwo(Arc<AtomicU32>);
//!
//! struct Slot(Arc<AtomicU32>);
//!
//! impl Drop for Slot {
//!     fn drop(&mut self) {
//!         self.0.fetch_sub(1, Relaxed);
//!     }
//! }
//!
//! impl Filter for AtMostTwo {
//!     type Permit = Slot;
//!
//!     fn reserve(&self) -> Reservation<Slot> {
//!         match self.0.fetch_update(Relaxed, Relaxed, |used| (used < 2).then_some(used + 1)) {
//!             Ok(_) => Reservation::Granted(Slot(Arc::clone(&self.0))),
//!             Err(_) => Reservation::Rejected(Rejection::new(Cause::Filter, Refusal::Close)),
//!         }
//!     }
//! }
//!
//! impl PolicyFilter for AtMostTwo {
//!     fn of(_: Policy, _: &Arc<dyn Clock>) -> Option<Self> {
//!         Some(Self(Arc::default()))
//!     }
//! }
//!
//! // With `Policy::Choosy` the checks let the filter refuse any connection.
//! for trigger in [Trigger::Level, Trigger::Edge] {
//!     let setup = Setup { trigger, gate: GateMode::Wait(3), policy: Policy::Choosy, queued: 4, ..Setup::plain() };
//!     for action in Action::all(&setup) {
//!         for point in 0..40 {
//!             let script = Script::new().at(point, action);
//!             if let Err(violation) = run_with::<Gate, AtMostTwo>(&setup, &script, &Real) {
//!                 panic!("{violation}\nin {setup:?}\nafter\n{script}");
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! # Limitations
//!
//! One thing happens at a time: races of threads inside the gate are tested with loom. Time is virtual, so an alarm is
//! never late. A run covers only its script, and an exploration only its bounds.

// MUST be pure and deterministic. Never imports from `linux`.
#![forbid(unsafe_code)]

pub mod kernel;
mod script;
mod checker;
mod world;
mod instrumented;
mod instrumented_filter;
mod policies;
mod acceptor_under_test;
mod backend;
mod run;
mod explore;

pub use self::acceptor_under_test::{Delivered, Factory, Handle, InjectedPanic, Real, Subject};
pub use self::backend::{SimBackend, SimStage, SimStream};
pub use self::checker::Violation;
pub use self::explore::{Explored, explore, explore_with, shrink};
pub use self::instrumented::{InstrumentedBackend, InstrumentedGate, InstrumentedPermit, Tracked};
pub use self::instrumented_filter::{InstrumentedFilter, InstrumentedFilterPermit};
pub use self::policies::{BuiltIn, BuiltInPermit, PolicyFilter};
pub use self::run::{Limited, Report, run, run_on, run_with};
pub use self::script::{Action, Call, GateMode, Leave, Policy, Script, Setup};
pub use self::world::{Stage, World};
pub use crate::admission::notifier::{Notifier, Requests, Wake};
pub use crate::admission::semaphore::{Enqueued, Semaphore, WaitFor};
pub use crate::drain::backend::{Backend, Peek};
pub use crate::drain::config::Config;
pub use crate::drain::core::{AcceptCore, Step};
pub use crate::drain::poller::Poller;
