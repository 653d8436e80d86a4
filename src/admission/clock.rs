//! The time, for policies that need it: given to them, so that the simulated kernel can give its own.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A clock that never goes back.
///
/// [`RateLimit::with_clock`](super::RateLimit::with_clock) and [`QueueDelay::with_clock`](super::QueueDelay::with_clock) take
/// one, so that a test need not wait:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use epoll_acceptor::admission::Clock;
/// use epoll_acceptor::{Admission, RateLimit, Reserve};
///
/// #[derive(Clone, Default)]
/// struct ByHand(Arc<AtomicU64>);
///
/// impl Clock for ByHand {
///     fn now(&self) -> Duration {
///         Duration::from_secs(self.0.load(Ordering::Relaxed))
///     }
/// }
///
/// let clock = ByHand::default();
/// let rate = RateLimit::with_clock(1, clock.clone());
/// assert!(matches!(rate.reserve(), Reserve::Room(_)));
/// assert!(matches!(rate.reserve(), Reserve::NotBefore(_)));
/// clock.0.store(1, Ordering::Relaxed);
/// assert!(matches!(rate.reserve(), Reserve::Room(_)));
/// ```
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

/// A clock that several have.
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        C::now(self)
    }
}
