//! The input of the diagnosis: observations without conclusions. What is not visible is `None`.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::probe::calls::CallRates;
use crate::probe::owners::FdTable;
use crate::probe::{Activity, Trigger};

/// A thread spins if its waits return at once at least this often per second, and are at least this share of
/// its system calls.
const WAITS_PER_SECOND: f64 = 30.0;
const WAITS_SHARE: f64 = 0.4;

/// Observations of one listener over a period.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// In chronological order.
    pub(crate) samples: Vec<Sample>,
    /// The capacity of the accept queue.
    pub(crate) capacity: u32,
    /// Segments dropped at this socket during the period, including ones that open no connection.
    pub(crate) dropped: Option<u32>,
    /// `ListenOverflows` of the network namespace during the period.
    pub(crate) overflows: Option<u64>,
    /// Whether a connection was accepted during the period.
    pub(crate) any_accepted: Option<bool>,
    /// Connections accepted per second. If the whole queue was replaced meanwhile, the rate is a lower bound.
    pub(crate) accept_rate: Option<f64>,
    /// The age of the oldest queued connection.
    pub(crate) oldest_wait: Option<Duration>,
    pub(crate) clients: Clients,
    /// The processes that accept here; `None` if none is visible.
    pub(crate) owner: Option<Owner>,
    /// Every process was visible.
    pub(crate) all_processes_visible: bool,
    /// The open files of the whole system.
    pub(crate) system_files: Option<FdTable>,
}

/// The connections of the listener's address outside the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clients {
    /// A connection arrived during the period.
    pub(crate) arrived: bool,
    /// None was seen to arrive, but connections arrived in the network namespace, and threads that may accept
    /// here woke at least half as often.
    pub(crate) may_have_arrived: bool,
    /// Those that arrived during the period, were accepted and are open.
    pub(crate) new_open: usize,
    /// Those that arrived during the period, had data read by the owner, and were open in two samples.
    pub(crate) new_read: usize,
    /// Those that arrived during the period and were closed by the server first.
    pub(crate) new_closed: usize,
    /// Accepted connections that are open.
    pub(crate) open: usize,
    /// Those of them with unread data, none of which the owner read during the period.
    pub(crate) unread: usize,
    /// Connections in SYN_RECV: an unfinished handshake, or `TCP_DEFER_ACCEPT` waits for data.
    pub(crate) handshakes: usize,
    /// Those of them that surely wait for data.
    pub(crate) deferred: usize,
}

/// A sample of the queue length, and of the owner's threads immediately before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) queued: u32,
    /// Whether the threads that wait for the listener's events (all threads, if those are unknown) were
    /// blocked before, after and in between.
    pub(crate) asleep: Option<bool>,
}

/// The processes that accept here, combined: a supervisor that only holds the listener is not among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) registrations: Vec<RegistrationFacts>,
    /// The distinct activities of their threads.
    pub(crate) activities: Vec<Activity>,
    /// A thread is blocked in `accept` on this listener.
    pub(crate) accepts: bool,
    /// The processor time of the busiest thread, as a fraction of one processor.
    pub(crate) cpu: f64,
    /// The busiest thread was running in every sample. Such a thread counts as the busiest whatever its
    /// `cpu`.
    pub(crate) never_asleep: bool,
    /// The busiest thread.
    pub(crate) tid: Option<i32>,
    /// A thread was blocked in a call other than a wait for events, and continued during the period.
    pub(crate) works_in_calls: bool,
    /// The system calls of the thread that waits most often, if they were counted.
    pub(crate) calls: Option<CallRates>,
    pub(crate) fd_table: Option<FdTable>,
    /// Open connections that these processes accepted at this address.
    pub(crate) accepted_alive: usize,
    /// The number of processes, and of those that have such a connection open.
    pub(crate) processes: usize,
    pub(crate) processes_serving: usize,
    pub(crate) stopped: Vec<i32>,
    /// They watch another listener on the same address, but not this one.
    pub(crate) sibling_watched: bool,
}

impl Owner {
    /// Returns whether the waits of a thread return at once, again and again; `None` if its system calls were
    /// not counted.
    pub(crate) fn waits_return(&self) -> Option<bool> {
        let calls = self.calls?;
        let count = calls.waits - calls.sleeps;
        Some(count >= WAITS_PER_SECOND && count >= WAITS_SHARE * calls.all)
    }
}

/// A registration of the listener with epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegistrationFacts {
    pub(crate) trigger: Trigger,
    /// Another epoll instance watches its epoll instance edge-triggered.
    pub(crate) within_edge: bool,
    /// The event loop of a runtime registered it.
    pub(crate) is_of_runtime: bool,
    /// Whether a thread was seen waiting in that epoll instance.
    pub(crate) awaited: Option<bool>,
}
