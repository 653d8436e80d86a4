//! Gates with one fault each, behind the acceptors of this crate.

use epoll_acceptor::sim::WaitFor;

use crate::test_gate::{GateHooks, Reference, State, Waiter, Wakes};

/// A release wakes none while the rate limit holds; that would end by a timer, which is not set.
pub(crate) struct RateSwallowsRelease;

impl GateHooks for RateSwallowsRelease {
    fn take(state: &mut State, acceptor: u32) -> bool {
        let available = Reference::take(state, acceptor);
        state.memory += u32::from(available);
        available
    }

    fn grant_and_wake(state: &mut State, freed: WaitFor) -> Wakes {
        const RATE: u32 = 2;
        if state.memory < RATE && Self::is_available(state) { Self::wake(state, freed) } else { Wakes::new() }
    }
}

/// A release removes all waiters from the queue, and wakes them only if a permit is available.
pub(crate) struct ClearsWhileOver;

impl GateHooks for ClearsWhileOver {
    fn grant_and_wake(state: &mut State, freed: WaitFor) -> Wakes {
        let wakes = Self::wake(state, freed);
        if Self::is_available(state) { wakes } else { Wakes::new() }
    }
}

/// The connection moves to another listener, and its count stays with the first.
pub(crate) struct CountsElsewhere;

impl GateHooks for CountsElsewhere {
    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.memory = state.memory.wrapping_sub(1);
        Self::grant_and_wake(state, freed)
    }
}

/// Closed until a worker is idle, which a worker reports only when a connection ends.
pub(crate) struct NoWorkerIdleYet;

impl GateHooks for NoWorkerIdleYet {
    fn is_available(state: &State) -> bool {
        state.memory > 0 && state.in_use < state.limit
    }

    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.memory = 1;
        state.in_use -= 1;
        Self::grant_and_wake(state, freed)
    }
}

/// A raised limit wakes no waiter.
pub(crate) struct RaisesSilently;

impl GateHooks for RaisesSilently {
    fn set_limit(state: &mut State, limit: u32) -> Wakes {
        state.limit = limit;
        Wakes::new()
    }
}

/// Wakes from the listener's own thread only, and connections end on others.
pub(crate) struct WrongThread;

impl GateHooks for WrongThread {
    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.in_use -= 1;
        if freed == WaitFor::Release { Wakes::new() } else { Self::grant_and_wake(state, freed) }
    }
}

/// Checks for a permit while the connection that ends is still counted.
pub(crate) struct ChecksBeforeItCounts;

impl GateHooks for ChecksBeforeItCounts {
    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        let wakes = Self::grant_and_wake(state, freed);
        state.in_use -= 1;
        wakes
    }
}

/// Its counter starts at one, and the release that must wake compares it as if it started at zero.
pub(crate) struct StartsAtOne;

impl GateHooks for StartsAtOne {
    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        let counter_before = state.in_use + 1;
        state.in_use -= 1;
        if counter_before == state.limit { Self::wake(state, freed) } else { Wakes::new() }
    }
}

/// A permit that was not used is released without a wakeup.
pub(crate) struct CancelsSilently;

impl GateHooks for CancelsSilently {
    fn cancel(state: &mut State) -> Wakes {
        state.in_use -= 1;
        Wakes::new()
    }
}

/// A release wakes one waiter, which may have no use for the permit.
pub(crate) struct WakesOne;

impl GateHooks for WakesOne {
    fn wake(state: &mut State, freed: WaitFor) -> Wakes {
        let waits = |waiter: &Waiter| freed == WaitFor::Release || waiter.wait_for == freed;
        let first = state.queue.iter().position(waits);
        first.and_then(|first| state.queue.remove(first)).map(|waiter| waiter.notifier).into_iter().collect()
    }
}

/// Increments, finds the limit exceeded, and does not decrement.
pub(crate) struct NoRollback;

impl GateHooks for NoRollback {
    fn take(state: &mut State, _: u32) -> bool {
        state.in_use += 1;
        state.in_use <= state.limit
    }
}

/// A second close releases a second time.
pub(crate) struct ClosedTwice;

impl GateHooks for ClosedTwice {
    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.in_use = state.in_use.saturating_sub(2);
        Self::grant_and_wake(state, freed)
    }
}

/// A refused connection is counted down when it closes, and was never counted up.
pub(crate) struct NeverCounted;

impl GateHooks for NeverCounted {
    fn refused(state: &mut State) {
        state.in_use = state.in_use.wrapping_sub(1);
    }
}

/// Both the function that rejects and its caller count down.
pub(crate) struct CancelledTwice;

impl GateHooks for CancelledTwice {
    fn cancel(state: &mut State) -> Wakes {
        Self::give(state, WaitFor::Permit);
        state.in_use = state.in_use.saturating_sub(1);
        Self::grant_and_wake(state, WaitFor::Permit)
    }
}

/// Checks whether a permit is available, and counts it at its next call.
pub(crate) struct CheckThenTake;

impl GateHooks for CheckThenTake {
    fn take(state: &mut State, acceptor: u32) -> bool {
        state.in_use += u32::from(state.pending.remove(&acceptor));
        let available = Self::is_available(state);
        if available {
            state.pending.insert(acceptor);
        }
        available
    }

    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        if state.in_use > 0 {
            state.in_use -= 1;
        } else {
            state.pending.pop_first();
        }
        Self::grant_and_wake(state, freed)
    }
}

/// Hands the connection to its worker first, and counts it afterwards, if it is still there.
pub(crate) struct PublishedUncounted;

impl GateHooks for PublishedUncounted {
    fn take(state: &mut State, _: u32) -> bool {
        state.in_use += std::mem::take(&mut state.memory);
        state.memory = u32::from(Self::is_available(state));
        state.memory > 0
    }

    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.in_use = state.in_use.saturating_sub(1);
        Self::grant_and_wake(state, freed)
    }
}

/// Compares the other connections with the limit, and forgets its own.
pub(crate) struct OneTooMany;

impl GateHooks for OneTooMany {
    fn is_available(state: &State) -> bool {
        state.in_use <= state.limit
    }
}

/// Pausing discards the limit, and resuming does not restore it.
pub(crate) struct LatchNotRebuilt;

impl GateHooks for LatchNotRebuilt {
    fn built(state: &mut State) {
        state.memory = u32::from(state.limit == 0);
    }

    fn is_available(state: &State) -> bool {
        let has_latch = state.memory == 0;
        state.limit > 0 && (!has_latch || state.in_use < state.limit)
    }
}

/// Wakes the first in its own list, and not the one that has waited longest.
pub(crate) struct FromTheFirst;

impl GateHooks for FromTheFirst {
    fn wake(state: &mut State, freed: WaitFor) -> Wakes {
        state.queue.make_contiguous().sort_by_key(|waiter| waiter.acceptor);
        Reference::wake(state, freed)
    }
}

/// One failed worker closes the gate for all.
pub(crate) struct OneFailureForAll;

impl GateHooks for OneFailureForAll {
    fn is_available(state: &State) -> bool {
        state.memory == 0 && state.in_use < state.limit
    }

    fn cancel(state: &mut State) -> Wakes {
        state.in_use -= 1;
        state.memory = 1;
        Wakes::new()
    }

    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.in_use -= 1;
        state.memory = 0;
        Self::grant_and_wake(state, freed)
    }
}

/// Opens below nine tenths of the limit: in whole numbers, of one that is zero.
pub(crate) struct NinetyPercent;

impl GateHooks for NinetyPercent {
    fn grant_and_wake(state: &mut State, freed: WaitFor) -> Wakes {
        if state.in_use < state.limit * 90 / 100 { Self::wake(state, freed) } else { Wakes::new() }
    }
}

/// Wakes no waiter.
pub(crate) struct WakesNone;

impl GateHooks for WakesNone {
    fn wake(_: &mut State, _: WaitFor) -> Wakes {
        Wakes::new()
    }
}

/// Keeps one waiter: the last.
pub(crate) struct LastWakerOnly;

impl GateHooks for LastWakerOnly {
    fn push(state: &mut State, waiter: Waiter) {
        state.queue.clear();
        state.queue.push_back(waiter);
    }
}

/// Removes from the queue while it walks along it.
pub(crate) struct SkipsEveryOther;

impl GateHooks for SkipsEveryOther {
    fn wake(state: &mut State, _: WaitFor) -> Wakes {
        let mut wakes = Wakes::new();
        let mut at = 0;
        while let Some(waiter) = state.queue.remove(at) {
            wakes.push(waiter.notifier);
            at += 1;
        }
        wakes
    }
}
