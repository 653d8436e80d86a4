//! Every decision of accepting: when to accept, when to stop, what is owed, when to sleep and who wakes.
//!
//! [`Acceptor`] is what user code drives. The code here knows no descriptor, no clock and no system call: what is
//! checked on the simulated kernel (feature `sim`) is what runs in production. The rules that it keeps are
//! [the promises](crate::guide::promises).

// MUST be pure: no descriptor, no clock, no system call. Of `libc` it may name the errno constants, nothing else. The
// world enters through `backend::Backend` alone. Imports from `admission` only.
#![forbid(unsafe_code)]

pub(crate) mod errno;
pub(crate) mod backend;
pub(crate) mod counters;
pub(crate) mod state;
mod backoff;
pub(crate) mod strategy;
mod predict;
mod pass;
pub(crate) mod shared;
mod sleep;
mod door;
#[cfg(feature = "tracing")]
mod events;
pub(crate) mod core;
pub(crate) mod acceptor;
pub(crate) mod closing;
#[cfg(feature = "group")]
pub(crate) mod attendance;

#[cfg(feature = "sim")]
pub use self::core::{Drain, Plan, Step};
pub use acceptor::{Acceptor, Ready};
#[cfg(feature = "sim")]
pub use backend::{Backend, Peek};
#[cfg(feature = "sim")]
pub use closing::{Bar, WindDown};
pub use closing::{Intake, Pending, ShutdownReport};
pub use counters::{Counters, Histogram};
pub use errno::{Errno, ErrnoClass};
pub use shared::Control;
pub use state::{ListenerClosed, State};
pub use strategy::{EdgeTriggered, EmptyCheck, Exclusive, LevelTriggered, Strategy, Trigger, UnknownTrigger};
