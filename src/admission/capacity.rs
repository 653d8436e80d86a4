//! The counts of a gate: how many permits are in use, and for which waiters one is available.

use std::task::Waker;

use super::semaphore::WaitFor;
use super::wait_queue::{WaitQueue, Waiter, Wakes};

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) limit: u32,
    /// The maximum number of handshakes at once.
    pub(super) handshakes: Option<u32>,
    /// The number of permits that must be free before a gate that was full opens again; 0 and 1 mean the same.
    pub(super) low_water: u32,
    /// Permits that only privileged handles may take.
    pub(super) reserved: u32,
}

/// The whole state of a gate. Invariant: no waiter that accepts permits waits while one is available to it.
#[derive(Debug)]
pub(super) struct Capacity {
    pub(super) limits: Limits,
    pub(super) in_use: u32,
    pub(super) handshaking: u32,
    /// The gate was full, and since then neither were `low_water` permits free nor all released.
    latched: bool,
    pub(super) queue: WaitQueue,
    /// The tasks that wait until no permit is in use.
    pub(super) idle_tasks: Vec<(u64, Waker)>,
    pub(super) idle_threads: u32,
    pub(super) next_task: u64,
}

impl Capacity {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_use: 0,
            handshaking: 0,
            latched: false,
            queue: WaitQueue::default(),
            idle_tasks: Vec::new(),
            idle_threads: 0,
            next_task: 0,
        }
    }

    /// Returns the number of permits that are free for handles without privilege.
    const fn free(&self) -> u32 {
        self.limits.limit.saturating_sub(self.in_use).saturating_sub(self.limits.reserved)
    }

    #[inline]
    const fn is_available(&self, privileged: bool) -> bool {
        if let Some(handshakes) = self.limits.handshakes {
            if self.handshaking >= handshakes {
                return false;
            }
        }
        if privileged { self.in_use < self.limits.limit } else { !self.latched && self.free() > 0 }
    }

    /// Counts one more permit, if one is available; returns whether one was.
    #[inline]
    pub(super) fn take(&mut self, privileged: bool) -> bool {
        if !self.is_available(privileged) {
            return false;
        }
        self.in_use += 1;
        self.handshaking += u32::from(self.limits.handshakes.is_some());
        // Only the last permit closes the latch. A privileged handle ignores the latch, and neither closes nor opens
        // it.
        if self.limits.low_water > 1 && !privileged {
            self.set_latch();
        }
        true
    }

    /// Takes a permit (one that is kept for the waiter, or an available one), or else queues the waiter, in one step
    /// (P1). Returns whether the waiter has a permit, and the entry that was removed from the queue.
    pub(super) fn acquire_or_enqueue(
        &mut self,
        wakes: Wakes,
        wait_for: WaitFor,
        privileged: bool,
    ) -> (bool, Option<Waiter>) {
        if self.queue.has_permit(&wakes) || (wait_for == WaitFor::Permit && self.take(privileged)) {
            return (true, self.queue.remove(&wakes));
        }
        (false, self.queue.push(wakes, wait_for, privileged))
    }

    /// Removes a task that waits until no permit is in use; returns its waker, to be dropped without the lock.
    pub(super) fn remove_idle_task(&mut self, task: u64) -> Option<Waker> {
        let at = self.idle_tasks.iter().position(|(other, _)| *other == task)?;
        Some(self.idle_tasks.remove(at).1)
    }

    pub(super) fn give(&mut self, handshaking: bool) {
        debug_assert!(self.in_use > 0, "a permit was released twice");
        self.in_use -= 1;
        if handshaking {
            self.end_handshake();
        }
    }

    pub(super) fn end_handshake(&mut self) {
        self.handshaking -= u32::from(self.limits.handshakes.is_some());
    }

    /// As [`give`](Self::give), for a permit that no connection has used. Unless the handle is privileged, opens the
    /// latch, which this unused permit may have closed.
    pub(super) fn give_unused(&mut self, handshaking: bool, privileged: bool) {
        self.give(handshaking);
        self.latched &= privileged;
    }

    /// Closes or opens the latch of the low-water mark as the counts demand.
    pub(super) const fn set_latch(&mut self) {
        let free = self.free();
        if self.limits.low_water > 1 && free == 0 {
            self.latched = true;
        } else if free >= self.limits.low_water || self.in_use == 0 {
            self.latched = false;
        }
    }

    /// Hands available permits to the waiters, in order (P11).
    pub(super) fn grant(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.grant(|privileged| match self.in_use < self.limits.limit {
            true => Some(self.take(privileged)),
            false => None,
        });
        self.queue = queue;
    }

    /// Revokes granted permits that are not collected yet, while the permits in use exceed a lowered limit (P3).
    pub(super) fn revoke_above_limit(&mut self) {
        while self.in_use > self.limits.limit && self.queue.revoke(false) {
            self.give(true);
        }
    }

    pub(super) const fn new_task(&mut self) -> u64 {
        self.next_task += 1;
        self.next_task
    }

    /// Returns whether only the limit matters: then the counts need no lock.
    pub(super) fn is_plain(&self) -> bool {
        let Limits { handshakes, low_water, reserved, .. } = self.limits;
        let has_waiters = !self.queue.is_empty() || !self.idle_tasks.is_empty() || self.idle_threads > 0;
        !has_waiters && !self.latched && low_water <= 1 && reserved == 0 && handshakes.is_none()
    }
}
