//! The state of an acceptor, and how long it has been in each.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::state::State;

const STATES: usize = State::ALL.len();

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimeInStates([Duration; STATES]);

/// The state, and the time spent in each, in nanoseconds. Only the owner writes.
#[derive(Debug, Default)]
pub(crate) struct StateTimes {
    state: AtomicU8,
    since: AtomicU64,
    spent: [AtomicU64; STATES],
}

impl TimeInStates {
    pub(super) fn time_in(&self, state: State) -> Duration {
        self.0[usize::from(state.code())]
    }
}

impl StateTimes {
    pub(super) fn begin(&self, now: Duration) {
        self.since.store(nanoseconds(now), Ordering::Relaxed);
    }

    pub(super) fn state(&self) -> State {
        State::from_code(self.state.load(Ordering::Acquire))
    }

    /// Enters a state; returns the one before.
    pub(super) fn enter(&self, state: State, now: Duration) -> State {
        let before = self.state();
        if before != state {
            let spent = &self.spent[usize::from(before.code())];
            spent.store(spent.load(Ordering::Relaxed) + self.lasted(now), Ordering::Relaxed);
            self.begin(now);
            self.state.store(state.code(), Ordering::Release);
        }
        before
    }

    pub(super) fn read(&self, now: Duration) -> TimeInStates {
        let current = usize::from(self.state.load(Ordering::Acquire));
        TimeInStates(std::array::from_fn(|code| {
            let lasted = if code == current { self.lasted(now) } else { 0 };
            Duration::from_nanos(self.spent[code].load(Ordering::Relaxed) + lasted)
        }))
    }

    fn lasted(&self, now: Duration) -> u64 {
        nanoseconds(now).saturating_sub(self.since.load(Ordering::Relaxed))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
