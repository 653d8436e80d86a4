//! Who may come in: the gate and its permits, and how those who may not are told.
//!
//! MUST be pure: no system call, and no clock but the deadline of `Gate::wait_idle`, on which no decision of an
//! acceptor depends. Holds the only state that threads share. Imports nothing from the other folders.
#![forbid(unsafe_code)]

pub(crate) mod sync;
pub mod refusal;
pub mod bell;
mod line;
mod word;
pub mod policy;
pub mod gate;
pub mod connection;

pub use bell::{Bell, Ring};
pub use connection::Connection;
pub use gate::{Gate, Permit, WhenFull};
pub use policy::{Admission, Line, Reserve, Unlimited, Until};
pub use refusal::Refusal;
