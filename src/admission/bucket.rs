//! A token bucket in one word.

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};

/// So many tokens a second, and so many at once. Kept as the moment at which it will be full again, so that nothing has
/// to be filled as time goes by.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds on whatever clock the callers share.
    full_at: AtomicU64,
    /// Nanoseconds in which one token comes in.
    interval: u64,
    /// Nanoseconds in which all do but one.
    tolerance: u64,
}

/// What was taken.
#[derive(Debug)]
pub(crate) struct Token {
    /// When the bucket would have been full again, if nobody had taken any since.
    full_at: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    /// A full one. Neither may be 0.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        // Rounded so that no more come in than may.
        let interval = SECOND.div_ceil(u64::from(per_second.max(1)));
        let tolerance = interval * u64::from(burst.max(1) - 1);
        Self { full_at: AtomicU64::new(0), interval, tolerance }
    }

    /// Takes a token, or tells how long it will be until there is one.
    pub(crate) fn take(&self, now: Duration) -> Result<Token, Duration> {
        let now = nanoseconds(now);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let lacking = full_at.saturating_sub(now);
            if lacking > self.tolerance {
                return Err(Duration::from_nanos(lacking - self.tolerance));
            }
            let next = full_at.max(now).saturating_add(self.interval);
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Token { full_at: next }),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// How long it will be until there is a token.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        let lacking = self.full_at.load(Ordering::Relaxed).saturating_sub(nanoseconds(now));
        Duration::from_nanos(lacking.saturating_sub(self.tolerance))
    }

    /// Puts a token back, or what is left of it: whatever has come in since may have found the bucket full without it.
    pub(crate) fn put_back(&self, token: &Token, now: Duration) {
        let left = token.full_at.saturating_sub(nanoseconds(now)).min(self.interval);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.saturating_sub(left);
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => full_at = seen,
            }
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
