//! One pass over the accept queue: how many attempts are left, and what is known of the queue.

use super::trigger::EmptyCheck;

/// From one call of `ready` or `drain` to its end. `P` is the gate's permit.
#[derive(Clone, Debug)]
pub(super) struct Pass<P> {
    /// Attempts left of the budget.
    pub(super) left: u32,
    /// Connections taken from the queue.
    pub(super) taken: u32,
    pub(super) queue: QueueLength,
    /// The knowledge of the queue after the connection that the event reported is taken.
    after_reported: QueueLength,
    /// A permit that no connection has used yet.
    pub(super) permit: Option<P>,
    /// The pass has ended and is counted.
    pub(super) over: bool,
}

/// The knowledge that a pass has of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueLength {
    /// At least one: the event says so, or a look.
    NotEmpty,
    /// Unknown: look at the queue.
    Peek,
    /// Unknown: read the length.
    Count,
    /// The length when it was read. Later arrivals have an event of their own.
    Exactly(u32),
    /// Unknown, and not asked for: accept until EAGAIN.
    UntilEagain,
}

impl<P> Pass<P> {
    /// A pass that has ended.
    pub(super) const fn ended() -> Self {
        let queue = QueueLength::Exactly(0);
        Self { left: 0, taken: 0, queue, after_reported: QueueLength::Peek, permit: None, over: true }
    }

    /// A pass that takes one connection. In doubt of the event, it looks first.
    #[inline]
    pub(super) const fn one(budget: u32, doubt: bool) -> Self {
        let queue = if doubt { QueueLength::Peek } else { QueueLength::NotEmpty };
        let after_reported = QueueLength::Exactly(0);
        Self { left: budget, taken: 0, queue, after_reported, permit: None, over: false }
    }

    /// A pass that takes all that is pending, within the budget.
    #[inline]
    pub(super) const fn all(budget: u32, doubt: bool, check: EmptyCheck) -> Self {
        let queue = match check {
            EmptyCheck::UntilEagain => QueueLength::UntilEagain,
            EmptyCheck::QueueLength => QueueLength::Count,
            EmptyCheck::Poll if doubt => QueueLength::Peek,
            EmptyCheck::Poll => QueueLength::NotEmpty,
        };
        Self { left: budget, taken: 0, queue, after_reported: QueueLength::Peek, permit: None, over: false }
    }

    /// One connection has left the queue.
    #[inline]
    pub(super) fn took(&mut self) {
        self.taken += 1;
        self.queue = match self.queue {
            QueueLength::NotEmpty => self.after_reported,
            QueueLength::Exactly(left) => QueueLength::Exactly(left.saturating_sub(1)),
            other => other,
        };
    }

    /// Returns whether it has taken everything that it began for.
    #[inline]
    pub(super) fn has_all(&self) -> bool {
        self.left == 0 || matches!(self.queue, QueueLength::Exactly(0))
    }

    /// Returns whether it looks for the end of the queue, and so learns how long the queue was.
    #[inline]
    pub(super) fn counts(&self) -> bool {
        matches!(self.after_reported, QueueLength::Peek)
    }
}
