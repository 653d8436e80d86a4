//! The signs on which the decision table is based: statements about the facts that are true or false. Pure.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::facts::{Facts, Owner, RegistrationFacts};
use crate::probe::{Activity, Trigger};

/// From this fraction of a processor a thread counts as busy, even if some samples found it blocked: a thread
/// that waits for events uses less than 0.01. A thread that no sample found blocked is busy at any fraction.
pub(crate) const CPU_BUSY: f64 = 0.15;
/// The owner sleeps on a non-empty queue if it is blocked in at least this fraction of the samples.
const SLEPT_SHARE: f64 = 0.8;
/// A server falls behind if the expected wait of a new connection is at least this long.
const SLOW: Duration = Duration::from_secs(1);
/// This many connections with unread data cannot be one slow request.
const UNREAD_MANY: usize = 3;

macro_rules! signs {
    ($($sign:ident: $text:literal,)*) => {
        /// A statement about the facts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Sign { $($sign),* }

        impl Sign {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$sign),*];

            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$sign => $text),* }
            }
        }
    };
}

signs! {
    Unseen: "the listener was closed before the first sample",
    Waiting: "connections were queued in every sample",
    Stalled: "connections were queued in every sample, and no thread makes progress with them",
    Accepted: "a connection was accepted",
    Arrived: "a connection arrived",
    WokeOften: "no connection was seen to arrive here, but some arrived in this network namespace (PassiveOpens), and the server woke for at least half as many",
    Read: "a connection that arrived was accepted, its data was read, and it stayed open for two samples",
    ClosedAtOnce: "all connections that arrived were accepted and closed, while older ones stay open",
    Full: "the queue was full in a sample",
    Dropped: "drops at this socket and ListenOverflows grew, and the queue was at least half full",
    Behind: "a new connection must expect to wait for a second or more",
    Unread: "at least 3 accepted connections, or half, have unread data (Recv-Q), and none of it was read",
    Owner: "a process that has the listener open is visible",
    AllVisible: "every process of this PID namespace is visible",
    Stopped: "all processes that accept here are stopped (state T)",
    SomeStopped: "a process that accepts here is stopped (state T)",
    DescriptorsFull: "the process has no free descriptor (RLIMIT_NOFILE)",
    DescriptorsLow: "the process has at most two free descriptors",
    FilesFull: "the system has no free file (fs.file-max)",
    Armed: "an epoll mask with EPOLLIN, or a thread in accept",
    Disarmed: "registered with an epoll mask without EPOLLIN",
    Fired: "registered with EPOLLONESHOT, and not rearmed since its event",
    Unwatched: "in no visible epoll, and no thread in accept",
    Sibling: "its owner watches another listener on this address",
    UnseenWatcher: "a thread that may poll or accept in a way that is not visible",
    Runtime: "the mask has EPOLLOUT or EPOLLPRI: the event loop of a runtime (Go, tokio, asio)",
    RuntimeWaits: "a runtime registered it, and a thread sleeps in that epoll_wait while connections are queued",
    EdgeWaits: "edge-triggered, and a thread sleeps in that epoll_wait while connections are queued",
    NestedWaits: "its epoll is in an edge-triggered one, and a thread sleeps in that epoll_wait",
    ExclusiveWaits: "EPOLLEXCLUSIVE, and a thread sleeps in that epoll_wait while connections are queued",
    LevelWaits: "level-triggered, and a thread sleeps in that epoll_wait although connections are queued",
    Asleep: "the threads that wait for its events (or all) slept in 80 % of the samples",
    Busy: "a thread uses at least 15 % of a CPU, or was running in every sample",
    WaitsCounted: "a thread's waits or accepts return at once, again and again (counted: 30 a second or more)",
    Holds: "connections accepted at this address are open",
    EachHolds: "each process that accepts here has a connection open that was accepted here",
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs(u64);

impl Signs {
    pub(crate) fn contains(self, sign: Sign) -> bool {
        self.0 & (1 << sign as u32) != 0
    }

    pub(crate) fn set(&mut self, sign: Sign, is_set: bool) {
        self.0 |= u64::from(is_set) << sign as u32;
    }

    pub(crate) fn of(facts: &Facts) -> Self {
        let mut signs = Self::default();
        let (waiting, accepted) = (facts.is_never_empty(), facts.any_accepted == Some(true));
        signs.set(Sign::Unseen, facts.samples.is_empty());
        signs.set(Sign::Waiting, waiting);
        signs.set(Sign::Accepted, accepted);
        signs.set(Sign::Arrived, facts.any_arrived());
        signs.set(Sign::WokeOften, facts.clients.may_have_arrived && !facts.any_arrived());
        signs.set(Sign::Read, facts.clients.new_read > 0);
        let clients = &facts.clients;
        let closed_at_once = clients.new_closed > 0 && clients.new_open == 0 && clients.open > 0;
        signs.set(Sign::ClosedAtOnce, closed_at_once);
        signs.set(Sign::Full, facts.samples.iter().any(|sample| sample.queued >= facts.capacity));
        signs.set(Sign::Dropped, facts.has_overflowed());
        signs.set(Sign::Behind, waiting && accepted && facts.expected_wait() >= Some(SLOW));
        let unread = clients.unread;
        signs.set(Sign::Unread, unread >= UNREAD_MANY || (unread > 0 && 2 * unread >= clients.open));
        signs.set(Sign::AllVisible, facts.all_processes_visible);
        signs.set(Sign::FilesFull, facts.system_files.is_some_and(|files| files.is_full()));
        signs.set(Sign::Holds, clients.open > 0);
        if let Some(owner) = &facts.owner {
            signs.add_owner(facts, owner);
        }
        let lossy = [Sign::EdgeWaits, Sign::NestedWaits, Sign::ExclusiveWaits];
        let is_lossy = lossy.iter().any(|sign| signs.contains(*sign)) || signs.contains(Sign::Runtime);
        // Each arrival wakes the owner of a stranded listener once, so one accept is no progress.
        let works_in_calls = facts.owner.as_ref().is_some_and(|owner| owner.works_in_calls);
        let sleeps_on_it = is_lossy && signs.contains(Sign::Asleep) && !works_in_calls;
        signs.set(Sign::Stalled, waiting && (!accepted || sleeps_on_it));
        signs
    }

    fn add_owner(&mut self, facts: &Facts, owner: &Owner) {
        let armed: Vec<RegistrationFacts> =
            owner.registrations.iter().copied().filter(|one| one.trigger.is_armed()).collect();
        let seen = |trigger: Trigger| owner.registrations.iter().any(|one| one.trigger == trigger);
        let is_armed = owner.accepts || !armed.is_empty();
        let asleep = facts.slept_on_queue();
        self.set(Sign::Owner, true);
        let stopped = owner.stopped.len();
        self.set(Sign::Stopped, stopped > 0 && stopped == owner.processes);
        self.set(Sign::SomeStopped, stopped > 0);
        self.set(Sign::DescriptorsFull, owner.fd_table.is_some_and(|table| table.is_full()));
        self.set(Sign::DescriptorsLow, owner.fd_table.is_some_and(|table| table.used + 2 >= table.limit));
        self.set(Sign::Armed, is_armed);
        self.set(Sign::Disarmed, !is_armed && seen(Trigger::Disarmed));
        self.set(Sign::Fired, !is_armed && !seen(Trigger::Disarmed) && seen(Trigger::Fired));
        self.set(Sign::Unwatched, !is_armed && owner.registrations.is_empty());
        self.set(Sign::Sibling, owner.sibling_watched);
        let is_unseen = owner.activities.is_empty() || owner.activities.iter().any(may_watch_unseen);
        self.set(Sign::UnseenWatcher, is_unseen);
        // Only a thread that waits, or that slept all the time, missed the event.
        let waits = |one: &RegistrationFacts| match one.awaited {
            Some(awaited) => awaited,
            None => asleep,
        };
        let waits_with = |is_it: &dyn Fn(&RegistrationFacts) -> bool| {
            facts.is_never_empty() && armed.iter().any(|one| is_it(one) && waits(one))
        };
        self.set(Sign::Runtime, armed.iter().any(|one| one.is_of_runtime && one.trigger == Trigger::Edge));
        self.set(Sign::RuntimeWaits, waits_with(&|one| one.is_of_runtime && one.trigger == Trigger::Edge));
        self.set(Sign::EdgeWaits, waits_with(&|one| one.trigger == Trigger::Edge && !one.is_of_runtime));
        self.set(Sign::NestedWaits, waits_with(&|one| one.trigger != Trigger::Edge && one.within_edge));
        self.set(Sign::ExclusiveWaits, waits_with(&|one| one.trigger == Trigger::Exclusive));
        self.set(
            Sign::LevelWaits,
            asleep && waits_with(&|one| one.trigger == Trigger::Level && !one.within_edge),
        );
        self.set(Sign::Asleep, asleep);
        self.set(Sign::Busy, owner.cpu >= CPU_BUSY || owner.never_asleep);
        self.set(Sign::WaitsCounted, owner.waits_return() == Some(true));
        self.set(Sign::EachHolds, owner.processes_serving > 0 && owner.processes_serving == owner.processes);
    }
}

/// Returns whether a thread with this activity may watch the listener in a way that is not visible.
fn may_watch_unseen(activity: &Activity) -> bool {
    // A thread blocked on a timer may call a non-blocking accept periodically.
    !matches!(activity, Activity::EpollWait(_) | Activity::Stopped)
}

impl Facts {
    /// Returns whether connections were waiting in every sample.
    fn is_never_empty(&self) -> bool {
        !self.samples.is_empty() && self.samples.iter().all(|sample| sample.queued > 0)
    }

    /// Returns whether connections were dropped because the queue was full. The socket also counts other
    /// segments that it drops, so the counter of the namespace must have grown, too.
    fn has_overflowed(&self) -> bool {
        let was_long = self.samples.iter().any(|sample| 2 * sample.queued >= self.capacity);
        self.dropped.is_some_and(|dropped| dropped > 0)
            && self.overflows.is_none_or(|overflows| overflows > 0)
            && was_long
    }

    /// Returns whether a connection arrived during the period, or was queued.
    pub(crate) fn any_arrived(&self) -> bool {
        self.clients.arrived || self.samples.iter().any(|sample| sample.queued > 0)
    }

    /// Returns whether the owner was blocked on a non-empty queue too often to be about to accept.
    fn slept_on_queue(&self) -> bool {
        let slept = self.samples.iter().filter(|sample| sample.asleep == Some(true)).count();
        #[expect(clippy::cast_precision_loss, reason = "a few dozen samples")]
        let enough = slept as f64 >= SLEPT_SHARE * self.samples.len() as f64;
        self.is_never_empty() && enough
    }

    /// Returns the expected wait of a new connection: the longer of the queue length divided by the accept rate,
    /// and the age of the oldest connection.
    pub(crate) fn expected_wait(&self) -> Option<Duration> {
        let queued = f64::from(self.samples.last()?.queued);
        let by_rate = self.accept_rate.filter(|rate| *rate > 0.0).map(|rate| (queued / rate).min(1e6));
        by_rate.map(Duration::from_secs_f64).max(self.oldest_wait)
    }
}
