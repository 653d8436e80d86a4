//! How long connections may have been queued.

use std::fmt;
use std::time::Duration;

use super::bell::Bell;
use super::clock::{Clock, Monotonic};
use super::newcomer::ConnectionInfo;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::{Cause, Refusal, Rejection};
use super::sync::{Arc, AtomicU64, Ordering};

/// Refuses those who have been queued for long while the server is overloaded, so that whoever is served was not.
///
/// A server that is offered more than it can serve fills its queue, and from then on everybody waits for as long as the
/// queue is, and is served when it has given up. This keeps the wait short instead: as soon as nobody has waited less
/// than the *target* for a whole *interval*, whoever waited longer than nearly twice the target (1.8 times, which
/// leaves a tick of the kernel's clock) is refused, until somebody has waited the target or less. It is the rule of
/// CoDel (RFC 8289), as servers use it that cannot drop what is not at the head of their queue. One burst, however
/// long, that the server gets through within the interval is not overload, and costs nobody its connection.
///
/// What is measured is the time in the kernel's accept queue, of each connection that is accepted
/// ([`ConnectionInfo::queued`]). So it goes well with a gate that pauses: the gate keeps the server from taking more than it
/// can serve, and this keeps what waits for it short. Clones are the same; acceptors that share it share what they saw.
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::{Admission, Gate, QueueDelay};
///
/// let policy = Gate::new(1_000).and(QueueDelay::new(Duration::from_millis(50)).max_delay(Duration::from_secs(5)));
/// # let _ = policy;
/// ```
///
/// ## Ticks
///
/// The kernel measures in ticks of its clock, which are 1 to 10 ms long (`CONFIG_HZ`): a target of less than some 20 ms
/// is noise.
///
/// ## Where nobody knows
///
/// Of Unix sockets, and of MPTCP over v6, the kernel does not tell how long they were queued. They are let in, and
/// [`unmeasured`](Self::unmeasured) counts them.
///
/// ## What is not queued is not seen
///
/// A client whose SYN was dropped because the queue was full waits at its own side for a second or more. With a short
/// backlog the queue is short and the clients wait all the same: the backlog should hold what comes in some intervals.
pub struct QueueDelay<C = Monotonic> {
    shared: Arc<Shared>,
    rules: Rules,
    clock: C,
}

#[derive(Clone, Debug)]
struct Rules {
    target: Duration,
    interval: Duration,
    max_delay: Option<Duration>,
    refusal: Refusal,
}

#[derive(Default)]
struct Shared {
    high: High,
    unmeasured: AtomicU64,
}

impl QueueDelay {
    /// Everybody should be served within this time. The interval is 100 ms, or four times the target if that is longer.
    ///
    /// # Panics
    ///
    /// If it is 0, or longer than 4 minutes.
    #[must_use]
    pub fn new(target: Duration) -> Self {
        Self::with_clock(target, Monotonic)
    }
}

impl<C: Clock> QueueDelay<C> {
    /// As [`new`](QueueDelay::new), by this clock.
    ///
    /// # Panics
    ///
    /// As that.
    #[must_use]
    pub fn with_clock(target: Duration, clock: C) -> Self {
        assert!(!target.is_zero(), "a target of 0 is missed by everybody: take some 20 ms or more");
        assert!(target <= INTERVAL_MAX / 4, "a target of {target:?} is no target: take less than 4 minutes");
        let interval = (4 * target).max(Duration::from_millis(100));
        let rules = Rules { target, interval, max_delay: None, refusal: Refusal::Reset };
        Self { shared: Arc::new(Shared::default()), rules, clock }
    }

    /// Refusals begin only after every connection, for this long, has waited longer than the target.
    ///
    /// # Panics
    ///
    /// If it is shorter than the target, or longer than 16 minutes.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        assert!(
            interval >= self.rules.target,
            "an interval shorter than the target: take some times the target"
        );
        assert!(interval <= INTERVAL_MAX, "an interval of {interval:?}: take less than 16 minutes");
        Self { rules: Rules { interval, ..self.rules }, ..self }
    }

    /// Refuses whoever has been queued longer than this, overload or not. Set it to the time after which your clients
    /// give up. No cut-off by default.
    ///
    /// # Panics
    ///
    /// If it is less than the target.
    #[must_use]
    pub fn max_delay(self, max_delay: Duration) -> Self {
        assert!(
            max_delay >= self.rules.target,
            "whoever has waited less than the target must not be refused"
        );
        Self { rules: Rules { max_delay: Some(max_delay), ..self.rules }, ..self }
    }

    /// How they are told: by a reset unless said otherwise.
    #[must_use]
    pub fn refusal(self, refusal: Refusal) -> Self {
        Self { rules: Rules { refusal, ..self.rules }, ..self }
    }

    /// How many were let in of whom the kernel does not tell how long they were queued.
    #[must_use]
    pub fn unmeasured(&self) -> u64 {
        self.shared.unmeasured.load(Ordering::Relaxed)
    }

    /// Whether somebody was queued this long who must not be served.
    fn refuses(&self, queued: Duration) -> bool {
        let Rules { target, interval, max_delay, .. } = self.rules;
        // Asked for everybody: those who are refused say as much about the queue as those who are not.
        let overloaded = match queued > target {
            true => self.shared.high.rises(self.clock.now(), queued, interval),
            false => self.shared.high.ends(),
        };
        (overloaded && queued > 2 * target - target / 5)
            || max_delay.is_some_and(|max_delay| queued > max_delay)
    }
}

impl<C: Clock> Admission for QueueDelay<C> {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        Reserve::Room(())
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, (): &mut ()) -> Result<(), Rejection> {
        match newcomer.queued() {
            Some(queued) if self.refuses(queued) => {
                return Err(Rejection::new(Cause::Delay, self.rules.refusal.clone()));
            }
            Some(_) => {}
            None => {
                self.shared.unmeasured.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn cancel(&self, (): ()) {}

    /// Nobody stands in line for time.
    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        until.without_a_line()
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}

/// For how long every wait has been above the target, in one word: 0, or the moment of the last wait seen, in
/// milliseconds, above the time since the first of them.
#[derive(Default)]
struct High(AtomicU64);

/// So many bits hold the time, 17 minutes; those above the moment, 557 years.
const FOR_BITS: u32 = 20;
const FOR_MAX: u64 = (1 << FOR_BITS) - 1;
const INTERVAL_MAX: Duration = Duration::from_secs(16 * 60);

impl High {
    /// A wait above the target was seen. Whether all have been for an interval, and there was always somebody who
    /// waited: one of them at least in each interval, or the same one.
    fn rises(&self, now: Duration, queued: Duration, interval: Duration) -> bool {
        // Never 0.
        let now = milliseconds(now) + 1;
        let (queued, interval) = (milliseconds(queued), milliseconds(interval).max(1));
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (last, lasted) = (word >> FOR_BITS, word & FOR_MAX);
            // Another thread may have read its clock later and been quicker.
            let since = now.saturating_sub(last);
            let anew = word == 0 || since > interval.max(queued);
            let lasts = if anew { 0 } else { (lasted + since).min(FOR_MAX) };
            let next = (now.max(last) << FOR_BITS) | lasts;
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return lasts >= interval,
                Err(seen) => word = seen,
            }
        }
    }

    /// A wait was seen that is not above the target.
    #[inline]
    fn ends(&self) -> bool {
        // Almost always it is so already: written by all acceptors, the word would go from one processor to the other.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
        false
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> (FOR_BITS + 1))
}

impl<C: Clone> Clone for QueueDelay<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), rules: self.rules.clone(), clock: self.clock.clone() }
    }
}

impl<C> fmt::Debug for QueueDelay<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueDelay").field("rules", &self.rules).finish_non_exhaustive()
    }
}
