//! One pass over the accept queue: how many attempts are left, and what is known of the queue.

use super::trigger::EmptyCheck;

/// A pass, from its `ready` or `drain` to its end.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// Attempts left of the budget; 0 once the pass has ended.
    pub(super) left: u32,
    /// Connections taken from the queue.
    pub(super) taken: u32,
    /// Connections that are certainly pending: those that the event or a look at the queue reported.
    pub(super) pending: u32,
    pub(super) then: Then,
    /// It looks for the end of the queue, and so learns how long the queue was.
    pub(super) counts: bool,
    /// The pass has ended and is counted.
    pub(super) over: bool,
}

/// What a pass does when it has taken all connections that it knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It ends. Later arrivals have an event of their own.
    End,
    /// It looks at the queue.
    Peek,
    /// It reads the length of the queue.
    ReadLength,
}

impl Pass {
    pub(super) const fn ended() -> Self {
        Self { left: 0, taken: 0, pending: 0, then: Then::End, counts: false, over: true }
    }

    /// A pass that takes one connection. If the event is in doubt, it looks at the queue first.
    #[inline]
    pub(super) const fn one(budget: u32, doubt: bool) -> Self {
        let (pending, then) = if doubt { (0, Then::Peek) } else { (1, Then::End) };
        Self { left: budget, taken: 0, pending, then, counts: false, over: false }
    }

    /// A pass that takes all that is pending, within the budget.
    #[inline]
    pub(super) const fn all(budget: u32, doubt: bool, check: EmptyCheck) -> Self {
        let (pending, then) = match check {
            // Until EAGAIN says otherwise.
            EmptyCheck::UntilEagain => (u32::MAX, Then::End),
            EmptyCheck::QueueLength => (0, Then::ReadLength),
            EmptyCheck::Poll if doubt => (0, Then::Peek),
            EmptyCheck::Poll => (1, Then::Peek),
        };
        Self { left: budget, taken: 0, pending, then, counts: true, over: false }
    }

    pub(super) const fn saw_one(&mut self) {
        self.pending = 1;
        self.then = if self.counts { Then::Peek } else { Then::End };
    }

    pub(super) const fn saw_length(&mut self, length: u32) {
        (self.pending, self.then) = (length, Then::End);
    }

    pub(super) const fn until_eagain(&mut self) {
        self.saw_length(u32::MAX);
    }

    #[inline]
    pub(super) const fn took(&mut self) {
        self.taken += 1;
        self.pending = self.pending.saturating_sub(1);
    }

    /// Returns whether it has taken all connections that it knows of, and looks for no more.
    #[inline]
    pub(super) fn has_all(&self) -> bool {
        self.pending == 0 && self.then == Then::End
    }
}
