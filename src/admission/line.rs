//! The line of acceptors that sleep on a gate, and whom of them a change concerns.

use std::collections::VecDeque;

use super::bell::Bell;
use super::policy::Until;
use super::sync::Arc;

/// Those who wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    /// Invariant: no bell stands here twice.
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    bell: Arc<Bell>,
    until: Until,
    privileged: bool,
    turn: Turn,
    /// It has been told to pause or to stop, and has no use for a place.
    excused: bool,
}

/// How far a waiter has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Waits,
    /// It is to be rung; if it waited for room, a place is kept for it.
    Called,
    /// It has been rung, and has not fetched its place yet.
    Rung,
}

impl WaitingLine {
    /// Puts a bell at the end; one that waits for the same already keeps its turn, without the place that was kept for
    /// it.
    pub(super) fn push(&mut self, bell: &Arc<Bell>, until: Until, privileged: bool) {
        let mut same = self.waiters.iter_mut().filter(|waiter| waiter.is(bell) && waiter.until == until);
        if let Some(waiter) = same.next() {
            waiter.turn = Turn::Waits;
            return;
        }
        self.remove(bell);
        let (bell, turn) = (Arc::clone(bell), Turn::Waits);
        self.waiters.push_back(Waiter { bell, until, privileged, turn, excused: false });
    }

    /// Takes a bell out; tells whether a place was kept for it.
    pub(super) fn remove(&mut self, bell: &Arc<Bell>) -> bool {
        let at = self.waiters.iter().position(|waiter| waiter.is(bell));
        at.and_then(|at| self.waiters.remove(at)).is_some_and(|waiter| waiter.has_place())
    }

    /// Whether a place is kept for a bell.
    pub(super) fn has_place(&self, bell: &Arc<Bell>) -> bool {
        self.waiters.iter().any(|waiter| waiter.is(bell) && waiter.has_place())
    }

    /// Notes who has been told to pause or to stop: that changes from other threads, and is looked at once.
    pub(super) fn look_at_commands(&mut self) {
        for waiter in &mut self.waiters {
            waiter.excused = waiter.bell.commands();
        }
    }

    /// Asks for a place for everyone who waits for room, in order: whether they are privileged is told to `take`.
    pub(super) fn ask(&self, mut take: impl FnMut(bool) -> bool) {
        for waiter in self.waiters.iter().filter(|waiter| waiter.waits_for_room()) {
            take(waiter.privileged);
        }
    }

    /// As [`ask`](Self::ask), and keeps a place for each whom `take` gave one.
    pub(super) fn hand_over(&mut self, mut take: impl FnMut(bool) -> bool) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.waits_for_room()) {
            if take(waiter.privileged) {
                waiter.turn = Turn::Called;
            }
        }
    }

    /// Takes the last place back that is kept for anybody, or for anybody who is excused; who it was kept for waits anew.
    /// Whether there was one.
    pub(super) fn take_back(&mut self, excused: bool) -> bool {
        let kept = |waiter: &&mut Waiter| waiter.has_place() && (waiter.excused || !excused);
        let last = self.waiters.iter_mut().rev().find(kept);
        last.map(|waiter| waiter.turn = Turn::Waits).is_some()
    }

    /// Calls everyone who waits for anything to be given back.
    pub(super) fn call_hopeful(&mut self) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.until == Until::Release) {
            waiter.turn = Turn::Called;
        }
    }

    /// The next bell to be rung.
    pub(super) fn next_call(&mut self) -> Option<Arc<Bell>> {
        let at = self.waiters.iter().position(|waiter| waiter.turn == Turn::Called)?;
        let waiter = &mut self.waiters[at];
        waiter.turn = Turn::Rung;
        let bell = Arc::clone(&waiter.bell);
        if !waiter.has_place() {
            self.waiters.remove(at);
        }
        Some(bell)
    }

    /// Whether a place that comes back concerns anybody.
    pub(super) fn waits(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.turn == Turn::Waits)
    }
}

impl Waiter {
    fn is(&self, bell: &Arc<Bell>) -> bool {
        Arc::ptr_eq(&self.bell, bell)
    }

    fn waits_for_room(&self) -> bool {
        self.until == Until::Room && self.turn == Turn::Waits && !self.excused
    }

    fn has_place(&self) -> bool {
        self.until == Until::Room && self.turn != Turn::Waits
    }
}
