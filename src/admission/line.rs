//! The line of acceptors that sleep on a gate.

use std::collections::VecDeque;

use super::bell::Bell;
use super::policy::Until;
use super::sync::Arc;

/// Those who wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    /// Invariant: no bell stands here twice.
    waiters: VecDeque<(Arc<Bell>, Until)>,
}

impl WaitingLine {
    pub(super) fn push(&mut self, bell: &Arc<Bell>, until: Until) {
        self.remove(bell);
        self.waiters.push_back((Arc::clone(bell), until));
    }

    pub(super) fn remove(&mut self, bell: &Arc<Bell>) {
        self.waiters.retain(|(waiter, _)| !Arc::ptr_eq(waiter, bell));
    }

    /// Takes out the first of those who are to be rung for what was given back.
    pub(super) fn pop(&mut self, given: Until) -> Option<Arc<Bell>> {
        let first = self.waiters.iter().position(|(_, until)| given == Until::Release || *until == given)?;
        self.waiters.remove(first).map(|(bell, _)| bell)
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }
}
