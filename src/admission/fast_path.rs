//! The counts of a gate in one atomic word, for as long as nothing but its limit matters.
//!
//! A permit is acquired and released by one compare-and-swap while the gate has no waiter and no rule besides its limit.
//! In every other case the state is under the gate's lock. Two places never hold the count at once: the thread that has
//! the lock freezes the word, and every thread that finds it frozen takes the lock. What it saves: docs/architecture.md.

use std::ops::{Deref, DerefMut};

use super::capacity::Capacity;
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// Permits in use in the low 31 bits, the limit in the next 31, and whether the word is frozen.
#[derive(Debug)]
pub(super) struct FastCounts(AtomicU64);

const BITS: u32 = 31;
const MASK: u64 = (1 << BITS) - 1;
const FROZEN: u64 = 1 << (2 * BITS);

/// The state of a gate, locked, with the word frozen. It thaws when this is dropped, if it may.
pub(super) struct LockedCapacity<'a> {
    /// Invariant: present until the drop, or until a condition variable takes it.
    state: Option<MutexGuard<'a, Capacity>>,
    counts: &'a FastCounts,
}

impl FastCounts {
    /// Creates a frozen word: the first lock thaws it.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(FROZEN))
    }

    /// Takes a permit, or returns whether the lock must decide.
    #[inline]
    pub(super) fn try_take(&self) -> Result<bool, NeedsLock> {
        self.update(|word| ((word & MASK) < (word >> BITS) & MASK).then_some(word + 1))
    }

    /// Gives a permit back.
    #[inline]
    pub(super) fn try_give(&self) -> Result<bool, NeedsLock> {
        self.update(|word| Some(word - 1))
    }

    #[inline]
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Result<bool, NeedsLock> {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            if seen & FROZEN != 0 {
                return Err(NeedsLock);
            }
            let Some(next) = change(seen) else { return Ok(false) };
            match self.0.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(true),
                Err(now) => seen = now,
            }
        }
    }

    /// Locks the state, which then has the count.
    pub(super) fn lock<'a>(&'a self, state: &'a Mutex<Capacity>) -> LockedCapacity<'a> {
        let mut state = lock(state);
        let word = self.0.fetch_or(FROZEN, Ordering::AcqRel);
        if word & FROZEN == 0 {
            state.in_use = u32::try_from(word & MASK).unwrap_or(u32::MAX);
        }
        LockedCapacity { state: Some(state), counts: self }
    }

    /// Gives the count back to the word, if nothing but the limit matters.
    fn thaw(&self, state: &Capacity) {
        if state.is_plain() {
            let limit = u64::from(state.limits.limit).min(MASK);
            self.0.store(limit << BITS | u64::from(state.in_use), Ordering::Release);
        }
    }
}

/// The word is frozen.
#[derive(Debug)]
pub(super) struct NeedsLock;

impl<'a> LockedCapacity<'a> {
    /// Lets a condition variable release the lock for a time. The word stays frozen: the thread that waits is counted.
    pub(super) fn while_unlocked(
        mut self,
        wait: impl FnOnce(MutexGuard<'a, Capacity>) -> MutexGuard<'a, Capacity>,
    ) -> Self {
        self.state = self.state.take().map(wait);
        self
    }
}

impl Deref for LockedCapacity<'_> {
    type Target = Capacity;

    fn deref(&self) -> &Capacity {
        self.state.as_ref().expect("the lock is held until the drop")
    }
}

impl DerefMut for LockedCapacity<'_> {
    fn deref_mut(&mut self) -> &mut Capacity {
        self.state.as_mut().expect("the lock is held until the drop")
    }
}

impl Drop for LockedCapacity<'_> {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            self.counts.thaw(state);
        }
    }
}
