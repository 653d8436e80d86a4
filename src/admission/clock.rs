//! The time, for policies that need it: given to them, so that the simulated kernel can give its own.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A clock that never goes back.
pub trait Clock: Send + Sync {
    /// The time since some fixed moment.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock. Setting the date does not disturb it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}
