//! What the judge is told. No fact here is a conclusion; what could not be seen is `None`.
#![forbid(unsafe_code)]

use crate::see::owners::Table;
use crate::see::{Doing, How};

/// One listener, watched for a while.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// In the order of time.
    pub(crate) samples: Vec<Sample>,
    /// How many connections may wait.
    pub(crate) capacity: u32,
    /// How many were dropped at this socket meanwhile.
    pub(crate) dropped: Option<u32>,
    /// Whether anything was taken from the queue meanwhile.
    pub(crate) taken: Option<bool>,
    /// Who has the listener; `None` if nobody who has it could be seen.
    pub(crate) owner: Option<Owner>,
    /// Every process could be looked into.
    pub(crate) all_seen: bool,
    /// The open files of the whole machine.
    pub(crate) machine: Option<Table>,
}

/// One look at the queue, and at its owner right before and right after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) queued: u32,
    /// Whether the threads that wait for the listener's events, or all where that is not known, slept before and
    /// after, and none of them was awake in between.
    pub(crate) asleep: Option<bool>,
}

/// The processes that have the listener open, taken together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) watches: Vec<Watch>,
    /// What its threads were seen at, each once.
    pub(crate) doing: Vec<Doing>,
    /// A thread sleeps in `accept` on this very listener.
    pub(crate) accepts: bool,
    /// The processor time of its busiest thread, as a share of one processor.
    pub(crate) cpu: f64,
    /// How much of that went to the kernel.
    pub(crate) cpu_system: f64,
    /// That thread was not once seen asleep. Such a one counts as the busiest, whatever it gets.
    pub(crate) never_asleep: bool,
    /// A thread was seen asleep in something other than a wait for events, and went on from there meanwhile.
    pub(crate) works_in_calls: bool,
    /// How often a second its most restless thread went to sleep.
    pub(crate) sleeps_per_second: f64,
    pub(crate) table: Option<Table>,
    /// Connections accepted from this address that it has open.
    pub(crate) accepted_alive: usize,
    /// Such connections are open in other processes, or in some that cannot be seen.
    pub(crate) accepted_elsewhere: bool,
    /// It watches another listener on the same address, and not this one.
    pub(crate) sibling_watched: bool,
}

/// A registration of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) how: How,
    /// Its epoll is itself watched edge-triggered by another.
    pub(crate) within_edge: bool,
    /// Whether a thread was seen waiting in that epoll.
    pub(crate) awaited: Option<bool>,
}

impl Watch {
    /// Whether an arrival makes an event.
    pub(crate) fn is_armed(self) -> bool {
        self.how.is_armed()
    }
}
