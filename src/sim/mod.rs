//! The pretended kernel, and everything that is proved on it.
//!
//! MUST be pure and deterministic: no descriptor, no clock, no thread. Stands on the seam
//! ([`Port`](crate::drain::Port)) as the equal of `linux`, and never imports from it. Not covered by semantic
//! versioning.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod script;
mod ledger;
pub mod env;
pub mod pointed;
pub mod subject;
pub mod stage;
pub mod run;
pub mod explore;

pub use env::{Env, Stage};
pub use explore::{Explored, explore};
pub use ledger::Violation;
pub use pointed::{PointedGate, PointedPermit, PointedPort, Tracked};
pub use run::{Limited, Report, run};
pub use script::{Act, Case, GateMode, Leave, Script};
pub use subject::{Maker, Real, Subject};
