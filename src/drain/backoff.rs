//! How long an acceptor that ran out of something waits before it tries again.

use std::time::Duration;

/// 10 ms, doubling to 200 ms, until something succeeds. Whatever is given back meanwhile has it try at once; but if that is
/// of no use either, the next such try is a moment later: others may give back more places in a second than there are
/// attempts to be wasted, and no descriptor with any of them.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// When it failed last. Of no meaning if nothing has since the last success: then `next` is `FIRST`.
    failed_at: Duration,
}

/// What to do after one more failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// Try again after so long.
    pub(super) after: Duration,
    /// And sooner, if anything is given back.
    pub(super) hopes: bool,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LAST: Duration = Duration::from_millis(200);
    /// Between two tries that were not due.
    const MOMENT: Duration = Duration::from_millis(5);

    pub(super) const fn new() -> Self {
        Self { next: Self::FIRST, failed_at: Duration::ZERO }
    }

    pub(super) fn failed(&mut self, now: Duration) -> Retry {
        let since = now.saturating_sub(std::mem::replace(&mut self.failed_at, now));
        if self.next != Self::FIRST && since < Self::MOMENT {
            return Retry { after: Self::MOMENT, hopes: false };
        }
        let after = self.next;
        self.next = (after * 2).min(Self::LAST);
        Retry { after, hopes: true }
    }

    #[inline]
    pub(super) fn succeeded(&mut self) {
        self.next = Self::FIRST;
    }
}
