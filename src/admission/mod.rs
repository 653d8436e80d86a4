//! Who may come in: the gate and its permits, and how those who may not are told.
//!
//! [`Admission`] is the question; [`Gate`], [`RateLimit`], [`PeerLimit`], [`QueueDelay`] and [`AllowedUsers`] are ready
//! answers to it, and [`Admission::and`] puts them together. Which one helps when is told in
//! [the guide to overload](crate::guide::overload).

// MUST be pure: no system call, and no clock in a decision: policies that need the time are given a `Clock`, of which
// `Monotonic` reads the system's. The deadline of `Gate::wait_idle` is the other place that does. Imports nothing from
// the other folders.
#![forbid(unsafe_code)]

pub(crate) mod sync;
pub(crate) mod refusal;
pub(crate) mod bell;
mod line;
mod word;
pub(crate) mod newcomer;
pub(crate) mod policy;
pub(crate) mod both;
pub(crate) mod gate;
pub(crate) mod clock;
pub(crate) mod bucket;
pub(crate) mod rate;
mod table;
pub(crate) mod peers;
pub(crate) mod delay;
pub(crate) mod credentials;
pub(crate) mod connection;

pub use bell::{Bell, Ring, Wishes};
pub use both::Both;
pub use clock::{Clock, Monotonic};
pub use connection::Connection;
pub use credentials::AllowedUsers;
pub use delay::QueueDelay;
pub use gate::{Gate, Permit, WhenFull};
pub use newcomer::{ConnectionInfo, Credentials};
pub use peers::{PeerLimit, PeerPermit};
pub use policy::{Admission, Line, Reserve, Unlimited, Until};
pub use rate::{RateLimit, RatePermit};
pub use refusal::{Cause, Refusal, Rejection};
