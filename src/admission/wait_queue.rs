//! The FIFO queue of acceptors and tasks that wait at a gate.
//!
//! # Hand-off (P11)
//!
//! If a release woke every waiter, the busiest might win each time. If it woke one that has no use for the permit, the
//! others would sleep on. So in the step that counts a release, the gate keeps the permit for the first waiter, and
//! then wakes it. A waiter that joins again keeps its turn. A kept permit is used or handed on, on every path:
//!
//! * The waiter collects it when its next pass begins. If that pass ends without using it (an empty queue, an error, a
//!   panic), the permit goes to the next waiter.
//! * A paused or stopped acceptor is not offered one.
//! * A pass that is forgotten before its first step cannot hand on its permit. So `ready()` wakes its own acceptor once
//!   more when it collects a permit; `drain()`, which cannot be forgotten, need not.
//! * Lowering the limit revokes permits that are kept and not collected.
//!
//! A waiter that leaves the queue is returned, and dropped without the gate's lock: dropping a waker may run user code,
//! which may use the gate.

use std::collections::VecDeque;
use std::task::Waker;

use super::notifier::Notifier;
use super::semaphore::WaitFor;
use super::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    /// Invariant: no waiter is queued twice.
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    wakes: Wakes,
    wait_for: WaitFor,
    privileged: bool,
    stage: Stage,
}

/// How a waiter is woken.
#[derive(Clone, Debug)]
pub(super) enum Wakes {
    /// The owner of an acceptor.
    Acceptor(Arc<Notifier>),
    /// A task that awaits a permit, by its number.
    Task(u64, Waker),
}

/// The progress of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Must be woken; if it waits for a permit, one is kept for it.
    Called,
    /// Has been woken and has not collected its permit yet.
    Woken,
}

impl WaitQueue {
    /// Appends a waiter; returns what it replaces. One that is queued already, for the same event, keeps its turn.
    pub(super) fn push(&mut self, wakes: Wakes, wait_for: WaitFor, privileged: bool) -> Option<Waiter> {
        let waiter = Waiter { wakes, wait_for, privileged, stage: Stage::Waiting };
        let mut queued = self.waiters.iter_mut();
        if let Some(same) = queued.find(|other| other.is(&waiter.wakes) && other.wait_for == wait_for) {
            return Some(std::mem::replace(same, waiter));
        }
        let replaced = self.remove(&waiter.wakes);
        self.waiters.push_back(waiter);
        replaced
    }

    /// Removes a waiter, with the permit that is kept for it.
    pub(super) fn remove(&mut self, wakes: &Wakes) -> Option<Waiter> {
        let at = self.waiters.iter().position(|waiter| waiter.is(wakes))?;
        self.waiters.remove(at)
    }

    pub(super) fn remove_task(&mut self, task: u64) -> Option<Waiter> {
        self.remove(&Wakes::Task(task, Waker::noop().clone()))
    }

    pub(super) fn has_permit(&self, wakes: &Wakes) -> bool {
        self.waiters.iter().any(|waiter| waiter.is(wakes) && waiter.has_permit())
    }

    /// Keeps a permit for each waiter for which `take` has one, in order. `take` receives whether the waiter is
    /// privileged, and returns `None` when nothing is left for any waiter.
    pub(super) fn grant(&mut self, mut take: impl FnMut(bool) -> Option<bool>) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.accepts_permit()) {
            match take(waiter.privileged) {
                Some(true) => waiter.stage = Stage::Called,
                Some(false) => {}
                None => break,
            }
        }
    }

    /// Takes back the last permit that is kept for a waiter, which then waits again. With `only_declined`, considers
    /// only waiters that decline permits now. Returns whether there was one.
    pub(super) fn revoke(&mut self, only_declined: bool) -> bool {
        let kept = |waiter: &&mut Waiter| waiter.has_permit() && (!only_declined || waiter.declines());
        self.waiters.iter_mut().rev().find(kept).map(|waiter| waiter.stage = Stage::Waiting).is_some()
    }

    pub(super) fn call_release_waiters(&mut self) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.wait_for == WaitFor::Release) {
            waiter.stage = Stage::Called;
        }
    }

    /// Returns the next waiter to wake. One that waited for a release leaves the queue.
    pub(super) fn next_called(&mut self) -> Option<Wakes> {
        let at = self.waiters.iter().position(|waiter| waiter.stage == Stage::Called)?;
        let waiter = &mut self.waiters[at];
        waiter.stage = Stage::Woken;
        if waiter.has_permit() {
            return Some(waiter.wakes.clone());
        }
        self.waiters.remove(at).map(|waiter| waiter.wakes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Returns whether any waiter waits for a permit and has none.
    pub(super) fn waits_for_permit(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.wait_for == WaitFor::Permit && waiter.stage == Stage::Waiting)
    }
}

impl Waiter {
    fn is(&self, other: &Wakes) -> bool {
        match (&self.wakes, other) {
            (Wakes::Acceptor(one), Wakes::Acceptor(other)) => Arc::ptr_eq(one, other),
            (Wakes::Task(one, _), Wakes::Task(other, _)) => one == other,
            _ => false,
        }
    }

    fn accepts_permit(&self) -> bool {
        self.wait_for == WaitFor::Permit && self.stage == Stage::Waiting && !self.declines()
    }

    /// Returns whether the acceptor was told to pause or stop.
    fn declines(&self) -> bool {
        matches!(&self.wakes, Wakes::Acceptor(notifier) if notifier.requests().declines_permits())
    }

    pub(super) fn has_permit(&self) -> bool {
        self.wait_for == WaitFor::Permit && self.stage != Stage::Waiting
    }
}

impl Wakes {
    pub(super) fn wake(self) {
        match self {
            Self::Acceptor(notifier) => notifier.notify(),
            Self::Task(_, waker) => waker.wake(),
        }
    }
}
