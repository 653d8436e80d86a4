//! Back-off after descriptors or memory ran out.

use std::time::Duration;

/// 10 ms, doubling to 200 ms, until an accept succeeds. A permit that is released meanwhile makes the acceptor retry at
/// once; if that fails, too, the next such retry is 5 ms later, because not every release frees a descriptor.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// The time of the last failure. Meaningless while `next` is `FIRST`: nothing has failed since the last success.
    failed_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) after: Duration,
    /// Retry sooner, when a permit is released.
    pub(super) on_release: bool,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LAST: Duration = Duration::from_millis(200);
    /// The minimum time between two early retries.
    const MOMENT: Duration = Duration::from_millis(5);

    pub(super) const fn new() -> Self {
        Self { next: Self::FIRST, failed_at: Duration::ZERO }
    }

    pub(super) fn failed(&mut self, now: Duration) -> Retry {
        let since = now.saturating_sub(std::mem::replace(&mut self.failed_at, now));
        if self.next != Self::FIRST && since < Self::MOMENT {
            return Retry { after: Self::MOMENT, on_release: false };
        }
        let after = self.next;
        self.next = (after * 2).min(Self::LAST);
        Retry { after, on_release: true }
    }

    #[inline]
    pub(super) fn succeeded(&mut self) {
        self.next = Self::FIRST;
    }
}
