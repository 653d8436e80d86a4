//! A limit on the time in the accept queue.

use std::fmt;
use std::time::Duration;

use super::clock::{Clock, Monotonic};
use super::connection_info::ConnectionInfo;
use super::filter::{Filter, Reservation};
use super::histogram::{AtomicHistogram, Histogram};
use super::refusal::{Cause, Refusal, Rejection};
use super::sync::{Arc, AtomicU64, Ordering};

/// Refuses connections that were queued for long while the server is overloaded, so that it serves recent ones.
///
/// A server that is offered more than it can serve fills its accept queue; from then on every connection waits behind
/// the whole queue, and is served after its client has given up. This filter keeps the queue short by the rule of CoDel
/// (RFC 8289). When the sojourn time of every connection has been above the *target* for an *interval*, it refuses
/// connections that were queued for more than 1.8 times the target, until one was queued for the target or less. The
/// factor allows for one tick of the kernel's clock. A burst that the server works off within the interval is not
/// overload, and costs no client its connection.
///
/// Use it with a gate that does not shed: the gate keeps the server from accepting more than it can serve, the filter
/// keeps the accept queue short. Clones are the same filter; acceptors that share it share what it has measured.
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::QueueDelay;
///
/// let delay = QueueDelay::builder(Duration::from_millis(50)).max_delay(Duration::from_secs(5)).build();
/// assert_eq!(delay.queue_times().iter().map(|(_, count)| count).sum::<u64>(), 0, "nothing was accepted yet");
/// ```
///
/// ## Resolution
///
/// The kernel measures in ticks of 1 to 10 ms (`CONFIG_HZ`, K67): a target below about 20 ms is noise.
///
/// ## Unmeasured connections
///
/// For Unix sockets, and MPTCP over IPv6, the kernel does not report the queue time. Such connections are admitted,
/// and [`unmeasured`](Self::unmeasured) counts them.
///
/// ## A short backlog hides the delay
///
/// If the kernel drops a SYN because the queue is full, the client retries after a second or more, and no filter sees
/// that wait. Choose a [backlog](crate::Builder::backlog) that holds what arrives in several intervals: a long one with
/// this filter serves more clients, sooner, than a short one.
#[derive(Clone)]
pub struct QueueDelay<C = Monotonic> {
    shared: Arc<Shared>,
    clock: C,
}

#[derive(Clone, Debug)]
struct Rules {
    target: Duration,
    interval: Duration,
    max_delay: Option<Duration>,
    refusal: Refusal,
}

struct Shared {
    rules: Rules,
    above_target: AboveTarget,
    unmeasured: AtomicU64,
    queue_times: AtomicHistogram,
}

/// Configures a [`QueueDelay`]; made by [`QueueDelay::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct QueueDelayBuilder<C = Monotonic> {
    rules: Rules,
    clock: C,
}

impl QueueDelay {
    /// Creates a filter that aims at `target`, with an interval of 100 ms, or four times the target if that is longer.
    ///
    /// # Panics
    ///
    /// If the target is 0, or longer than 4 minutes.
    #[must_use]
    pub fn new(target: Duration) -> Self {
        Self::builder(target).build()
    }

    /// Configures a filter that aims at `target`.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn builder(target: Duration) -> QueueDelayBuilder {
        let allowed = !target.is_zero() && target <= INTERVAL_MAX / 4;
        assert!(allowed, "the target must be above 0 and at most 4 minutes");
        let interval = (4 * target).max(Duration::from_millis(100));
        let rules = Rules { target, interval, max_delay: None, refusal: Refusal::Reset };
        QueueDelayBuilder { rules, clock: Monotonic }
    }
}

impl<C> QueueDelayBuilder<C> {
    /// Begins to refuse only when, for this long, every connection was queued longer than the target.
    ///
    /// # Panics
    ///
    /// If it is shorter than the target, or longer than 16 minutes.
    pub fn interval(mut self, interval: Duration) -> Self {
        let allowed = interval >= self.rules.target && interval <= INTERVAL_MAX;
        assert!(allowed, "the interval must be at least the target and at most 16 minutes");
        self.rules.interval = interval;
        self
    }

    /// Refuses every connection that was queued longer than this, overload or not. Set it to the time after which your
    /// clients give up. No maximum unless set.
    ///
    /// # Panics
    ///
    /// If it is less than the target.
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        assert!(max_delay >= self.rules.target, "the maximum delay must be at least the target");
        self.rules.max_delay = Some(max_delay);
        self
    }

    /// Sets how connections are refused; the default is a reset.
    pub fn refusal(mut self, refusal: Refusal) -> Self {
        self.rules.refusal = refusal;
        self
    }

    /// Reads the time from `clock`, for tests.
    pub fn clock<D: Clock>(self, clock: D) -> QueueDelayBuilder<D> {
        QueueDelayBuilder { rules: self.rules, clock }
    }

    /// Creates the filter.
    #[must_use]
    pub fn build(self) -> QueueDelay<C> {
        let shared = Shared {
            rules: self.rules,
            above_target: AboveTarget::default(),
            unmeasured: AtomicU64::new(0),
            queue_times: AtomicHistogram::default(),
        };
        QueueDelay { shared: Arc::new(shared), clock: self.clock }
    }
}

impl<C> QueueDelay<C> {
    /// Returns how many connections were admitted because the kernel does not report their queue time.
    #[must_use]
    pub fn unmeasured(&self) -> u64 {
        self.shared.unmeasured.load(Ordering::Relaxed)
    }

    /// Returns the distribution of the queue times seen, in milliseconds.
    #[must_use]
    pub fn queue_times(&self) -> Histogram {
        self.shared.queue_times.read()
    }
}

impl<C: Clock> QueueDelay<C> {
    fn refuses(&self, queued: Duration) -> bool {
        let Rules { target, interval, max_delay, .. } = self.shared.rules;
        let above_target = &self.shared.above_target;
        // Every connection counts: a refused one shows as much of the queue as an admitted one.
        let overloaded = match queued > target {
            true => above_target.rises(self.clock.now(), queued, interval),
            false => above_target.ends(),
        };
        (overloaded && queued > 2 * target - target / 5) || max_delay.is_some_and(|max| queued > max)
    }
}

impl<C: Clock> Filter for QueueDelay<C> {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        let Some(queued) = connection.queue_time() else {
            self.shared.unmeasured.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        self.shared.queue_times.add_shared(u32::try_from(queued.as_millis()).unwrap_or(u32::MAX));
        match self.refuses(queued) {
            true => Err(Rejection::new(Cause::Delay, self.shared.rules.refusal.clone())),
            false => Ok(()),
        }
    }
}

/// The period in which every queue time was above the target, in one word: 0 if the last queue time was not above it.
/// Otherwise the low bits hold the length of the period, the high bits the moment of the last queue time, in
/// milliseconds.
#[derive(Default)]
struct AboveTarget(AtomicU64);

/// The number of low bits, which hold 17 minutes; the high bits suffice for 557 years.
const FOR_BITS: u32 = 20;
const FOR_MAX: u64 = (1 << FOR_BITS) - 1;
const INTERVAL_MAX: Duration = Duration::from_secs(16 * 60);

impl AboveTarget {
    /// Notes a queue time above the target. Returns whether the period has lasted an interval. The period begins again
    /// after a gap longer than both the interval and this queue time.
    fn rises(&self, now: Duration, queued: Duration, interval: Duration) -> bool {
        // Never 0.
        let now = milliseconds(now) + 1;
        let (queued, interval) = (milliseconds(queued), milliseconds(interval).max(1));
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (last, lasted) = (word >> FOR_BITS, word & FOR_MAX);
            // Another thread may have read its clock later and stored first.
            let since = now.saturating_sub(last);
            let restarts = word == 0 || since > interval.max(queued);
            let lasts = if restarts { 0 } else { (lasted + since).min(FOR_MAX) };
            let next = (now.max(last) << FOR_BITS) | lasts;
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return lasts >= interval,
                Err(seen) => word = seen,
            }
        }
    }

    /// Notes a queue time that is not above the target.
    #[inline]
    fn ends(&self) -> bool {
        // Mostly it is 0 already: a store by each acceptor would move the cache line between processors.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
        false
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> (FOR_BITS + 1))
}

impl<C> fmt::Debug for QueueDelay<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueDelay").field("rules", &self.shared.rules).finish_non_exhaustive()
    }
}
