//! Gates whose operations are several steps where they must be one, or act outside the lock. The names in brackets are
//! rows of `docs/known-bugs.md`.

use std::cell::RefCell;

use epoll_acceptor::sim::{Notifier, WaitFor};
use loom::sync::Arc;
use loom::sync::atomic::Ordering;

use crate::test_gate::{GateHooks, Shared, State, Waiter, Wakes};

/// Joins the wait queue without checking for a permit again [S22].
pub(crate) struct NoRecheck;

impl GateHooks for NoRecheck {
    fn take_or_push(state: &mut State, waiter: Waiter) -> bool {
        state.remove(&waiter.notifier);
        Self::push(state, waiter);
        false
    }
}

/// Checks for a permit again *before* it joins the wait queue [S15, S21].
pub(crate) struct ChecksTooEarly;

impl GateHooks for ChecksTooEarly {
    fn acquire_or_enqueue(gate: &Shared, waiter: Waiter) -> bool {
        let mut state = gate.lock();
        if state.collect(&waiter.notifier) || Self::take(&mut state, waiter.acceptor) {
            state.remove(&waiter.notifier);
            return true;
        }
        drop(state);
        let mut state = gate.lock();
        state.remove(&waiter.notifier);
        Self::push(&mut state, waiter);
        false
    }
}

/// Keeps "a waiter is queued" in an atomic of its own, and the count in another: each thread may miss the other's write.
pub(crate) struct TwoAtomics;

const LIMIT: u64 = 1;

impl TwoAtomics {
    fn take(gate: &Shared) -> bool {
        let take = |in_use| (in_use < LIMIT).then_some(in_use + 1);
        gate.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn give(gate: &Shared) {
        gate.word.fetch_sub(1, Ordering::AcqRel);
        if gate.flag.load(Ordering::Acquire) {
            gate.change::<Self>(|state| {
                gate.flag.store(false, Ordering::Release);
                state.queue.drain(..).map(|waiter| waiter.notifier).collect()
            });
        }
    }
}

impl GateHooks for TwoAtomics {
    fn try_acquire(gate: &Shared, _: u32) -> bool {
        Self::take(gate)
    }

    fn acquire_or_enqueue(gate: &Shared, waiter: Waiter) -> bool {
        let mut state = gate.lock();
        state.remove(&waiter.notifier);
        gate.flag.store(true, Ordering::Release);
        if gate.word.load(Ordering::Acquire) < LIMIT && Self::take(gate) {
            return true;
        }
        Self::push(&mut state, waiter);
        false
    }

    fn release(gate: &Shared) {
        Self::give(gate);
    }

    fn release_unused(gate: &Shared) {
        Self::give(gate);
    }
}

/// Remembers "full" outside the lock, and writes it after a release has cleared it [S22].
pub(crate) struct LateLatch;

impl GateHooks for LateLatch {
    fn try_acquire(gate: &Shared, acceptor: u32) -> bool {
        if gate.flag.load(Ordering::Acquire) {
            return false;
        }
        let acquired = Self::take(&mut gate.lock(), acceptor);
        if !acquired {
            gate.flag.store(true, Ordering::Release);
        }
        acquired
    }

    fn acquire_or_enqueue(gate: &Shared, waiter: Waiter) -> bool {
        let mut state = gate.lock();
        if state.collect(&waiter.notifier) {
            return true;
        }
        if gate.flag.load(Ordering::Acquire) {
            state.remove(&waiter.notifier);
            Self::push(&mut state, waiter);
            return false;
        }
        Self::take_or_push(&mut state, waiter)
    }

    fn release(gate: &Shared) {
        gate.change::<Self>(|state| {
            gate.flag.store(false, Ordering::Release);
            Self::give(state, WaitFor::Release)
        });
    }
}

/// Wakes before the permit is released [S23].
pub(crate) struct WakesFirst;

impl GateHooks for WakesFirst {
    fn release(gate: &Shared) {
        gate.change::<Self>(|state| state.queue.drain(..).map(|waiter| waiter.notifier).collect());
        gate.lock().in_use -= 1;
    }
}

/// Clears "a waiter is queued" after it has woken the waiters, and not under the lock of the queue [S14].
pub(crate) struct ClearsTooLate;

impl GateHooks for ClearsTooLate {
    fn push(state: &mut State, waiter: Waiter) {
        state.memory = 1;
        state.queue.push_back(waiter);
    }

    fn release(gate: &Shared) {
        gate.change::<Self>(|state| {
            state.in_use -= 1;
            // The flag saves a walk along the queue.
            if state.memory == 1 { Self::grant_and_wake(state, WaitFor::Release) } else { Wakes::new() }
        });
        gate.lock().memory = 0;
    }
}

/// Wakes only for what its own thread releases [S20].
pub(crate) struct OwnThreadOnly;

loom::thread_local! {
    static IS_OWN: RefCell<bool> = RefCell::new(false);
}

impl GateHooks for OwnThreadOnly {
    fn built(_: &mut State) {
        IS_OWN.with(|own| *own.borrow_mut() = true);
    }

    fn grant_and_wake(state: &mut State, freed: WaitFor) -> Wakes {
        let own = IS_OWN.with(|own| *own.borrow());
        if own && Self::is_available(state) { Self::wake(state, freed) } else { Wakes::new() }
    }
}

/// Loses a permit that was not used [L13, M16].
pub(crate) struct LeaksOnCancel;

impl GateHooks for LeaksOnCancel {
    fn cancel(_: &mut State) -> Wakes {
        Wakes::new()
    }
}

/// Releases a permit that was not used twice [S17].
pub(crate) struct CancelsTwice;

impl GateHooks for CancelsTwice {
    fn cancel(state: &mut State) -> Wakes {
        state.in_use = state.in_use.wrapping_sub(1);
        Self::give(state, WaitFor::Permit)
    }
}

/// Checks for a permit, and takes it in a second step [L11].
pub(crate) struct ChecksThenTakes;

impl GateHooks for ChecksThenTakes {
    fn try_acquire(gate: &Shared, _: u32) -> bool {
        let available = Self::is_available(&gate.lock());
        gate.lock().in_use += u32::from(available);
        available
    }
}

/// An acceptor that is dropped stays in the wait queue.
pub(crate) struct DequeueForgets;

impl GateHooks for DequeueForgets {
    fn dequeue(gate: &Shared, notifier: &Arc<Notifier>) -> bool {
        gate.lock().collect(notifier)
    }
}
