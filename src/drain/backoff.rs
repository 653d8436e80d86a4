//! How long an acceptor that ran out of something waits before it tries again.

use std::time::Duration;

/// 10 ms, doubling to 200 ms, until something succeeds.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const FIRST: Duration = Duration::from_millis(10);
    pub(super) const LAST: Duration = Duration::from_millis(200);

    pub(super) const fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The delay after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(Self::LAST);
        delay
    }

    #[inline]
    pub(super) fn succeeded(&mut self) {
        self.next = Self::FIRST;
    }
}
