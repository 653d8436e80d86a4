//! The time, for filters that need it: injected, so that the simulated kernel can set it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A clock that never goes back.
///
/// [`RateLimitBuilder::clock`](super::rate_limit::RateLimitBuilder::clock) and
/// [`QueueDelayBuilder::clock`](super::queue_delay::QueueDelayBuilder::clock) take one, so that a test need not sleep:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use epoll_acceptor::filter::{Clock, Reservation};
/// use epoll_acceptor::{Filter, RateLimit};
///
/// #[derive(Clone, Default)]
/// struct Manual(Arc<AtomicU64>);
///
/// impl Clock for Manual {
///     fn now(&self) -> Duration {
///         Duration::from_secs(self.0.load(Ordering::Relaxed))
///     }
/// }
///
/// let clock = Manual::default();
/// let rate = RateLimit::builder(1).clock(clock.clone()).build();
/// assert!(matches!(rate.reserve(), Reservation::Granted(_)));
/// assert!(matches!(rate.reserve(), Reservation::RetryAfter(_)));
/// clock.0.store(1, Ordering::Relaxed);
/// assert!(matches!(rate.reserve(), Reservation::Granted(_)));
/// ```
pub trait Clock: Send + Sync {
    /// Returns the time since a fixed moment.
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

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        C::now(self)
    }
}
