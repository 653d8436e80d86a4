//! The crate's fast path, copied: the free permits in an atomic word for as long as the gate has no waiter, and under the lock
//! otherwise. Without a fault it keeps every promise; each fault makes one step wrong.

use std::ops::{Deref, DerefMut};

use epoll_acceptor::sim::{Notifier, WaitFor};
use loom::sync::atomic::Ordering;
use loom::sync::{Arc, MutexGuard};

use crate::test_gate::{GateHooks, Shared, State, Waiter, Wakes};

pub(crate) const SOUND: u8 = 0;
/// Freezes the word by a load and a store: what another thread writes in between is lost.
pub(crate) const FREEZES_IN_TWO_STEPS: u8 = 1;
/// Thaws the word while waiters are queued: a release wakes none.
pub(crate) const THAWS_WITH_WAITERS: u8 = 2;
/// Thaws the word after it has unlocked the state, by a count that is out of date.
pub(crate) const THAWS_UNLOCKED: u8 = 3;
/// Does not read the free permits from the word when it freezes it.
pub(crate) const KEEPS_OLD_COUNT: u8 = 4;
/// Releases a permit to the word although it is frozen.
pub(crate) const GIVES_TO_FROZEN: u8 = 5;

/// The gate with one of the faults above.
pub(crate) struct FastPath<const FAULT: u8>;

/// The word: the free permits and one, or 0 while it is frozen, as at first.
const FROZEN: u64 = 0;

/// The state, locked, with the word frozen.
struct Frozen<'a, const FAULT: u8> {
    state: Option<MutexGuard<'a, State>>,
    gate: &'a Shared,
}

impl<const FAULT: u8> FastPath<FAULT> {
    /// Takes a permit, unless the word is frozen.
    fn try_take(gate: &Shared) -> Option<bool> {
        let mut word = gate.word.load(Ordering::Acquire);
        while word > 1 {
            match gate.word.compare_exchange(word, word - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(true),
                Err(now) => word = now,
            }
        }
        (word != FROZEN).then_some(false)
    }

    /// Gives a permit back, unless the word is frozen. Returns whether it did.
    fn try_give(gate: &Shared) -> bool {
        let mut word = gate.word.load(Ordering::Acquire);
        while word != FROZEN {
            match gate.word.compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    fn lock(gate: &Shared) -> Frozen<'_, FAULT> {
        let mut state = gate.lock();
        let word = if FAULT == FREEZES_IN_TWO_STEPS {
            let word = gate.word.load(Ordering::Acquire);
            gate.word.store(FROZEN, Ordering::Release);
            word
        } else {
            gate.word.swap(FROZEN, Ordering::AcqRel)
        };
        if word != FROZEN && FAULT != KEEPS_OLD_COUNT {
            state.in_use = state.limit - u32::try_from(word - 1).expect("at most the limit");
        }
        Frozen { state: Some(state), gate }
    }

    fn give(gate: &Shared, freed: WaitFor) {
        let given = match FAULT {
            GIVES_TO_FROZEN => gate.word.fetch_add(1, Ordering::AcqRel) != FROZEN,
            _ => Self::try_give(gate),
        };
        if given {
            return;
        }
        let wakes = match FAULT {
            // The count is that of the word.
            GIVES_TO_FROZEN => Self::grant_and_wake(&mut Self::lock(gate), freed),
            _ => <Self as GateHooks>::give(&mut Self::lock(gate), freed),
        };
        wakes.iter().for_each(|notifier| notifier.notify());
    }
}

impl<const FAULT: u8> Drop for Frozen<'_, FAULT> {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        let has_waiters = !state.queue.is_empty() || !state.granted.is_empty();
        if has_waiters && FAULT != THAWS_WITH_WAITERS {
            return;
        }
        let Some(free) = state.limit.checked_sub(state.in_use) else { return };
        let word = u64::from(free) + 1;
        let state = (FAULT != THAWS_UNLOCKED).then_some(state);
        self.gate.word.store(word, Ordering::Release);
        drop(state);
    }
}

impl<const FAULT: u8> Deref for Frozen<'_, FAULT> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect("locked until the drop")
    }
}

impl<const FAULT: u8> DerefMut for Frozen<'_, FAULT> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("locked until the drop")
    }
}

impl<const FAULT: u8> GateHooks for FastPath<FAULT> {
    fn try_acquire(gate: &Shared, acceptor: u32) -> bool {
        Self::try_take(gate).unwrap_or_else(|| Self::take(&mut Self::lock(gate), acceptor))
    }

    fn acquire_or_enqueue(gate: &Shared, waiter: Waiter) -> bool {
        let mut state = Self::lock(gate);
        state.collect(&waiter.notifier) || Self::take_or_push(&mut state, waiter)
    }

    fn release(gate: &Shared) {
        Self::give(gate, WaitFor::Release);
    }

    fn release_unused(gate: &Shared) {
        Self::give(gate, WaitFor::Permit);
    }

    fn change_limit(gate: &Shared, limit: u32) {
        let wakes: Wakes = Self::set_limit(&mut Self::lock(gate), limit);
        wakes.iter().for_each(|notifier| notifier.notify());
    }

    fn dequeue(gate: &Shared, notifier: &Arc<Notifier>) -> bool {
        let mut state = Self::lock(gate);
        state.remove(notifier);
        state.collect(notifier)
    }

    fn in_use(gate: &Shared) -> u32 {
        Self::lock(gate).in_use
    }
}
