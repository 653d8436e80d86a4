//! The pretended kernel, and everything that is proved on it.
//!
//! Pure and deterministic: no descriptor, no clock, no thread. It stands behind the same trait as the real kernel,
//! [`Backend`](crate::drain::Backend), so that the acceptor that is explored is the one that runs in production. Not covered
//! by semantic versioning.
//!
//! # What a run is
//!
//! A [`Setup`] says what is built: the trigger, the budget, the gate, how many acceptors, how their owners leave the
//! loop. A [`Script`] says what the environment does and when: clients come, quit and reset, permits come back,
//! descriptors run out, another process takes connections. [`run`](run()) plays both and checks the promises of
//! [the guide](crate::guide::promises) on the way; [`explore`](explore()) plays every script up to a number of acts, the shortest first.
//!
//! # Test your own policy
//!
//! An admission policy or a whole accept loop of your own goes through the same: implement
//! [`Admission`](crate::admission::Admission) and [`Limited`] for the policy, or [`Subject`] and [`Factory`] for the loop:
//! [the guide to testing](crate::guide::testing). This policy counts places in an atomic, and
//! forgets that somebody may be waiting:
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU32, Ordering::SeqCst}};
//! use epoll_acceptor::admission::Bell;
//! use epoll_acceptor::sim::{Action, Setup, GateMode, Limited, Real, explore};
//! use epoll_acceptor::{Admission, Line, Reserve, Until, WhenFull};
//!
//! #[derive(Clone)]
//! struct Counter { left: Arc<AtomicU32> }
//! struct Place(Arc<AtomicU32>);
//!
//! impl Drop for Place {
//!     fn drop(&mut self) { self.0.fetch_add(1, SeqCst); } // and rings nobody
//! }
//!
//! impl Admission for Counter {
//!     type Permit = Place;
//!     fn reserve(&self) -> Reserve<Place> {
//!         match self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
//!             Ok(_) => Reserve::Room(Place(Arc::clone(&self.left))),
//!             Err(_) => Reserve::Full,
//!         }
//!     }
//!     fn cancel(&self, place: Place) { drop(place); }
//!     fn stand(&self, _: &Arc<Bell>, _: Until) -> Line { Line::Standing }
//!     fn leave(&self, _: &Arc<Bell>) -> Option<Place> { None }
//! }
//!
//! impl Limited for Counter {
//!     fn with_limit(limit: u32, _: WhenFull) -> Self { Self { left: Arc::new(AtomicU32::new(limit)) } }
//!     fn change_limit(&self, _: u32) {}
//! }
//!
//! let case = Setup { gate: GateMode::Pause(1), queued: 2, ..Setup::plain() };
//! let (script, violation) = explore::<Counter>(&case, &Real, &[Action::Free], 1).unwrap_err();
//! assert_eq!(violation.promise, "P1", "the second client is stranded");
//! assert!(script.acts().is_empty(), "and nothing special has to happen for that");
//! ```
//!
//! # What it cannot see
//!
//! One thing happens at a time: threads that run into each other inside the gate are loom's part. Time is virtual, so
//! an alarm is never late. A run is as long as its script, and the exploration as wide as its bounds.

// MUST be pure and deterministic. Never imports from `linux`.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod script;
mod ledger;
mod refusals;
mod visitors;
pub mod env;
pub mod pointed;
mod extra;
pub mod subject;
pub mod stage;
pub mod run;
pub mod explore;

pub use env::{Env, Stage};
pub use explore::{Explored, explore};
pub use ledger::Violation;
pub use pointed::{InstrumentedBackend, InstrumentedGate, InstrumentedPermit, Tracked};
pub use run::{Limited, Report, run};
pub use script::{Action, GateMode, Leave, Policy, Script, Setup};
pub use subject::{Factory, Handle, InjectedPanic, Real, Subject};
