//! One pass over the accept queue: how many attempts are left, and what is known of the queue.

use super::strategy::EmptyCheck;

/// From one call of `ready` or `drain` to the end of it.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// Attempts left of the budget.
    pub(super) left: u32,
    /// Connections taken from the queue.
    pub(super) taken: u32,
    pub(super) known: Known,
    /// What to expect once the connection that the event told of is taken.
    after_told: Known,
    /// It is over, and has been counted.
    pub(super) over: bool,
}

/// What a pass knows of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Something waits: the event says so, or a look.
    Told,
    /// Nothing: look whether anything waits.
    Ask,
    /// Nothing: ask how many wait.
    Count,
    /// So many wait. Later arrivals have an event of their own.
    Exactly(u32),
    /// Nothing, and nothing is asked: accept until EAGAIN.
    UntilEagain,
}

impl Pass {
    /// A pass that has not begun.
    pub(super) const fn none() -> Self {
        Self { left: 0, taken: 0, known: Known::Exactly(0), after_told: Known::Ask, over: true }
    }

    /// A pass that takes one connection. In doubt of the event, it looks first.
    #[inline]
    pub(super) const fn one(budget: u32, doubt: bool) -> Self {
        let known = if doubt { Known::Ask } else { Known::Told };
        Self { left: budget, known, after_told: Known::Exactly(0), over: false, ..Self::none() }
    }

    /// A pass that takes all that waits, within the budget.
    #[inline]
    pub(super) const fn all(budget: u32, doubt: bool, proof: EmptyCheck) -> Self {
        let known = match proof {
            EmptyCheck::UntilEagain => Known::UntilEagain,
            EmptyCheck::QueueLength => Known::Count,
            EmptyCheck::Poll if doubt => Known::Ask,
            EmptyCheck::Poll => Known::Told,
        };
        Self { left: budget, known, over: false, ..Self::none() }
    }

    /// One connection has left the queue.
    #[inline]
    pub(super) fn took(&mut self) {
        self.taken += 1;
        self.known = match self.known {
            Known::Told => self.after_told,
            Known::Exactly(left) => Known::Exactly(left.saturating_sub(1)),
            other => other,
        };
    }

    /// Whether it has taken everything that it came for.
    #[inline]
    pub(super) fn has_all(&self) -> bool {
        self.left == 0 || self.known == Known::Exactly(0)
    }

    /// Whether it looks for the end of the queue, and so learns how long that was.
    #[inline]
    pub(super) fn counts(&self) -> bool {
        self.after_told == Known::Ask
    }
}
