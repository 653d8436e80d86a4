//! The input of the diagnosis: observations without conclusions. What is not visible is `None`.
#![forbid(unsafe_code)]

use crate::probe::owners::FdTable;
use crate::probe::{Activity, Trigger};

/// Observations of one listener over a period.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// In chronological order.
    pub(crate) samples: Vec<Sample>,
    /// The capacity of the accept queue.
    pub(crate) capacity: u32,
    /// Connections dropped at this socket during the period.
    pub(crate) dropped: Option<u32>,
    /// Whether a connection was accepted during the period.
    pub(crate) any_accepted: Option<bool>,
    /// The processes that have the listener open; `None` if none of them is visible.
    pub(crate) owner: Option<Owner>,
    /// Every process was visible.
    pub(crate) all_processes_visible: bool,
    /// The open files of the whole system.
    pub(crate) system_files: Option<FdTable>,
}

/// A sample of the queue length, and of the owner's threads immediately before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) queued: u32,
    /// Whether the threads that wait for the listener's events (all threads, if those are unknown) were
    /// blocked before, after and in between.
    pub(crate) asleep: Option<bool>,
}

/// The processes that have the listener open, combined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) registrations: Vec<RegistrationFacts>,
    /// The distinct activities of its threads.
    pub(crate) activities: Vec<Activity>,
    /// A thread is blocked in `accept` on this listener.
    pub(crate) accepts: bool,
    /// The processor time of its busiest thread, as a fraction of one processor.
    pub(crate) cpu: f64,
    /// The part of `cpu` spent in the kernel.
    pub(crate) cpu_system: f64,
    /// The busiest thread was running in every sample. Such a thread counts as the busiest whatever its
    /// `cpu`.
    pub(crate) never_asleep: bool,
    /// A thread was blocked in a call other than a wait for events, and continued during the period.
    pub(crate) works_in_calls: bool,
    /// Voluntary context switches per second, of the thread with the most.
    pub(crate) sleeps_per_second: f64,
    pub(crate) fd_table: Option<FdTable>,
    /// Open connections that it accepted at this address.
    pub(crate) accepted_alive: usize,
    /// Other processes, visible or not, have such connections open.
    pub(crate) accepted_elsewhere: bool,
    /// It watches another listener on the same address, but not this one.
    pub(crate) sibling_watched: bool,
}

/// A registration of the listener with epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegistrationFacts {
    pub(crate) trigger: Trigger,
    /// Another epoll instance watches its epoll instance edge-triggered.
    pub(crate) within_edge: bool,
    /// Whether a thread was seen waiting in that epoll instance.
    pub(crate) awaited: Option<bool>,
}

impl RegistrationFacts {
    /// Returns whether arrivals are reported.
    pub(crate) fn is_armed(self) -> bool {
        self.trigger.is_armed()
    }
}
