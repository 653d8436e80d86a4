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
//! [the guide to testing](crate::guide::testing). This filter rejects every second connection, and panics at the fifth:
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
//! use epoll_acceptor::filter::{Clock, ConnectionInfo, Rejection, Reservation};
//! use epoll_acceptor::sim::{Action, Policy, PolicyFilter, Real, Script, Setup, run_with};
//! use epoll_acceptor::{Filter, Gate};
//!
//! #[derive(Clone)]
//! struct EverySecond(Arc<AtomicU32>);
//!
//! impl Filter for EverySecond {
//!     type Permit = ();
//!     fn reserve(&self) -> Reservation<()> {
//!         Reservation::Granted(())
//!     }
//!     fn admit(&self, _: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
//!         match self.0.fetch_add(1, Relaxed) % 2 {
//!             0 => Ok(()),
//!             _ => Err(Rejection::close()),
//!         }
//!     }
//! }
//!
//! impl PolicyFilter for EverySecond {
//!     fn of(_: Policy, _: &Arc<dyn Clock>) -> Option<Self> {
//!         Some(Self(Arc::default()))
//!     }
//! }
//!
//! let setup = Setup { queued: 4, policy: Policy::Choosy, ..Setup::plain() };
//! let script = Script::new().at(3, Action::Connect(0));
//! let report = run_with::<Gate, EverySecond>(&setup, &script, &Real).expect("no promise is broken");
//! assert_eq!(report.delivered, 3);
//! ```
//!
//! # Limitations
//!
//! One thing happens at a time: races of threads inside the gate are loom's part. Time is virtual, so an alarm is never
//! late. A run is as long as its script, and an exploration as wide as its bounds.

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
