//! Who may come in: the gate and its permits, and how those who may not are told.
//!
//! MUST be pure: no descriptor, no clock, no system call. Holds the only state that threads share. Imports
//! nothing from the other folders.
#![forbid(unsafe_code)]

pub(crate) mod sync;
pub mod refusal;
pub mod bell;
pub mod line;
pub mod policy;
pub mod gate;
pub mod connection;

pub use bell::Ring;
pub use connection::Connection;
pub use gate::{Gate, Permit, WhenFull};
pub use policy::{Admission, Line, Reserve, Unlimited, Until};
pub use refusal::Refusal;
