//! The generic cell rate algorithm (GCRA): a token bucket in one word.

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};

/// A token bucket with a rate per second and a burst, stored as a theoretical arrival time, so that no timer has to
/// refill it.
#[derive(Debug)]
pub(crate) struct Gcra {
    /// When the bucket will be full again, in nanoseconds of the clock that the callers share.
    theoretical_arrival_time: AtomicU64,
    /// Nanoseconds for each token.
    interval: AtomicU64,
    /// Nanoseconds for all tokens of a burst but one.
    tolerance: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Token {
    /// When the bucket will be full again, if no other token is taken.
    theoretical_arrival_time: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Gcra {
    /// Creates a full bucket. 0 counts as 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let gcra = Self {
            theoretical_arrival_time: AtomicU64::new(0),
            interval: AtomicU64::new(0),
            tolerance: AtomicU64::new(0),
        };
        gcra.set(per_second, burst);
        gcra
    }

    /// Changes the rate and the burst; the tokens that are missing now stay missing.
    pub(crate) fn set(&self, per_second: u32, burst: u32) {
        // Rounded so that the rate is never exceeded.
        let interval = SECOND.div_ceil(u64::from(per_second.max(1)));
        self.interval.store(interval, Ordering::Relaxed);
        self.tolerance.store(interval * u64::from(burst.max(1) - 1), Ordering::Relaxed);
    }

    /// Takes a token, or returns how long it takes until one is available.
    pub(crate) fn take(&self, now: Duration) -> Result<Token, Duration> {
        let now = nanoseconds(now);
        let (interval, tolerance) = (self.interval.load(Ordering::Relaxed), self.tolerance());
        let mut time = self.theoretical_arrival_time.load(Ordering::Relaxed);
        loop {
            let missing = time.saturating_sub(now);
            if missing > tolerance {
                return Err(Duration::from_nanos(missing - tolerance));
            }
            // At the end of the clock there are no more tokens.
            let Some(next) = time.max(now).checked_add(interval) else {
                return Err(Duration::from_nanos(interval));
            };
            match self.exchange(time, next) {
                Ok(()) => return Ok(Token { theoretical_arrival_time: next }),
                Err(seen) => time = seen,
            }
        }
    }

    pub(crate) fn wait(&self, now: Duration) -> Duration {
        let time = self.theoretical_arrival_time.load(Ordering::Relaxed);
        Duration::from_nanos(time.saturating_sub(nanoseconds(now)).saturating_sub(self.tolerance()))
    }

    /// Puts a token back, less the refill that would have overflowed the bucket with the token in it.
    pub(crate) fn put_back(&self, token: &Token, now: Duration) {
        let left = token.theoretical_arrival_time.saturating_sub(nanoseconds(now));
        let left = left.min(self.interval.load(Ordering::Relaxed));
        let mut time = self.theoretical_arrival_time.load(Ordering::Relaxed);
        while let Err(seen) = self.exchange(time, time.saturating_sub(left)) {
            time = seen;
        }
    }

    fn tolerance(&self) -> u64 {
        self.tolerance.load(Ordering::Relaxed)
    }

    fn exchange(&self, time: u64, next: u64) -> Result<(), u64> {
        let word = &self.theoretical_arrival_time;
        word.compare_exchange_weak(time, next, Ordering::Relaxed, Ordering::Relaxed).map(drop)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
