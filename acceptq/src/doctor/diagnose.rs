//! Derives the verdict from the facts. Pure: no I/O, no clock.
//!
//! The order of the checks matters: a server out of descriptors also spins or sleeps, and a paused one also
//! overflows, so the more specific cause comes first. A server that accepts is healthy unless its queue
//! overflows.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::facts::{Facts, Owner, RegistrationFacts};
use crate::probe::{Activity, Trigger};

/// From this fraction of a processor a thread counts as busy, even if some samples found it blocked: a thread
/// that waits for events uses less than 0.01. A thread that no sample found blocked is busy at any fraction.
const CPU_BUSY: f64 = 0.15;
/// A loop of failing system calls spends more than this part of its time in the kernel, a computation less.
const CPU_IN_KERNEL: f64 = 0.1;
/// A loop that sleeps briefly between futile wakeups blocks at least this often per second.
const RESTLESS_SLEEPS: f64 = 40.0;
/// The owner sleeps on a non-empty queue if it is blocked in at least this fraction of the samples.
const SLEPT_SHARE: f64 = 0.8;

/// The verdict on a listener. The worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Healthy,
    Backpressure,
    Undetermined,
    Overflowing,
    #[serde(rename = "nobody_polls")]
    NotPolled,
    Stuck,
    Spinning,
    Exhausted,
    Stranded,
}

/// The cause of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// The queue was empty at some time.
    Drained,
    /// The queue was never empty, but connections are accepted.
    Taking,

    /// Registered with a mask without `EPOLLIN`.
    Disarmed,
    /// In no epoll, and its owner has connections open that it accepted there.
    Deregistered,
    /// One-shot, fired, not rearmed, and its owner has connections open that it accepted there.
    NotRearmed,

    /// Connections wait, none is accepted, and the owner is not visible.
    OwnerHidden,
    /// Likewise, although every process of this PID namespace is visible.
    OwnerElsewhere,
    /// The observations contradict each other.
    Contradiction,
    /// The listener was closed.
    NothingSeen,

    /// Connections were dropped.
    Dropping,
    /// The queue was full.
    Full,

    /// In no epoll, no thread in accept, and its owner has no connection open that it accepted there.
    Unwatched,
    /// In no epoll, while its owner watches another listener on the same address.
    UnwatchedMember,

    /// No thread waits for its events: all are blocked in other calls.
    Elsewhere,
    /// In no epoll: a thread accepts with a blocking call, and is blocked in another.
    HeldUp,
    /// A thread computes and does not return to the event loop.
    Busy,
    /// All threads are stopped by a signal or a debugger.
    Stopped,

    /// Wakes without end for connections that it does not accept.
    NeverSleeps,
    /// Likewise, with a short sleep each time.
    Restless,

    /// The process has no free descriptor.
    DescriptorTable,
    /// The system has no free file.
    FileTable,

    /// Edge-triggered, and asleep on a non-empty queue.
    Edge,
    /// Likewise; an outer epoll instance is edge-triggered.
    NestedEdge,
    /// Exclusive: the waiter that was woken did not accept, and the kernel wakes no other.
    Exclusive,
    /// One-shot, fired, and no connection remains open that could rearm it by closing.
    Forgotten,
    /// A mask without `EPOLLIN`, and no connection remains open that could rearm it by closing.
    NotResumed,
}

impl Cause {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Drained | Self::Taking => Verdict::Healthy,
            Self::Disarmed | Self::Deregistered | Self::NotRearmed => Verdict::Backpressure,
            Self::OwnerHidden | Self::OwnerElsewhere | Self::Contradiction | Self::NothingSeen => {
                Verdict::Undetermined
            }
            Self::Dropping | Self::Full => Verdict::Overflowing,
            Self::Unwatched | Self::UnwatchedMember => Verdict::NotPolled,
            Self::Elsewhere | Self::HeldUp | Self::Busy | Self::Stopped => Verdict::Stuck,
            Self::NeverSleeps | Self::Restless => Verdict::Spinning,
            Self::DescriptorTable | Self::FileTable => Verdict::Exhausted,
            Self::Edge | Self::NestedEdge | Self::Exclusive | Self::Forgotten | Self::NotResumed => {
                Verdict::Stranded
            }
        }
    }
}

/// Derives the cause of the verdict.
pub(crate) fn diagnose(facts: &Facts) -> Cause {
    if facts.samples.is_empty() {
        return Cause::NothingSeen;
    }
    let Some(owner) = &facts.owner else {
        return match facts.makes_progress() {
            true => facts.progress_cause(),
            false if facts.all_processes_visible => Cause::OwnerElsewhere,
            false => Cause::OwnerHidden,
        };
    };
    let is_armed = owner.accepts || owner.registrations.iter().any(|registration| registration.is_armed());
    match is_armed {
        true => armed(facts, owner),
        false => not_armed(facts, owner),
    }
}

/// Diagnoses a listener that epoll or a blocking accept watches for arrivals.
fn armed(facts: &Facts, owner: &Owner) -> Cause {
    let slept = facts.slept_on_queue();
    // Blocking calls for one client after another are slow, not stranded.
    if facts.makes_progress() && (!slept || owner.works_in_calls) {
        return facts.progress_cause();
    }
    if let Some(exhausted) = facts.exhausted(owner) {
        return exhausted;
    }
    let registrations: Vec<RegistrationFacts> =
        owner.registrations.iter().copied().filter(|registration| registration.is_armed()).collect();
    let missed = registrations
        .iter()
        .filter(|registration| registration.awaited != Some(false))
        .find_map(|registration| lost_wakeup_cause(*registration));
    if owner.is_stopped() {
        return Cause::Stopped;
    }
    if owner.is_busy() && !slept {
        let gets_events = owner.accepts
            || registrations.iter().any(|registration| lost_wakeup_cause(*registration).is_none());
        if gets_events && owner.is_in_kernel() {
            return Cause::NeverSleeps;
        }
        // A loop that serves other connections is busy too, but blocks in between.
        if owner.never_asleep {
            return Cause::Busy;
        }
    }
    match missed {
        Some(cause) => cause,
        // A level-triggered wait on a non-empty queue returns, so the blocked threads were in other calls.
        None if facts.makes_progress() => facts.progress_cause(),
        None if registrations.iter().any(|registration| registration.awaited == Some(true)) && slept => {
            Cause::Contradiction
        }
        None if owner.sleeps_per_second >= RESTLESS_SLEEPS => Cause::Restless,
        None => Cause::Elsewhere,
    }
}

/// Returns how this registration can lose a wakeup; `None` if it cannot.
fn lost_wakeup_cause(registration: RegistrationFacts) -> Option<Cause> {
    match registration.trigger {
        Trigger::Edge => Some(Cause::Edge),
        _ if registration.within_edge => Some(Cause::NestedEdge),
        Trigger::Exclusive => Some(Cause::Exclusive),
        _ => None,
    }
}

/// Diagnoses a listener that neither epoll nor a blocking accept watches for arrivals.
fn not_armed(facts: &Facts, owner: &Owner) -> Cause {
    let never_empty = facts.never_empty();
    if facts.any_accepted == Some(true) {
        return facts.progress_cause();
    }
    if never_empty && let Some(exhausted) = facts.exhausted(owner) {
        return exhausted;
    }
    if owner.is_stopped() && never_empty {
        return Cause::Stopped;
    }
    let serves = owner.accepted_alive > 0 && !owner.sibling_watched;
    let seen =
        |trigger: Trigger| owner.registrations.iter().any(|registration| registration.trigger == trigger);
    // No process has a connection open that was accepted there, so no close can rearm the listener.
    let has_no_connections = !serves && !owner.accepted_elsewhere;
    // A thread that is awake may be about to rearm it.
    let is_awake = !facts.slept_on_queue();
    if seen(Trigger::Disarmed) {
        return if has_no_connections && !is_awake { Cause::NotResumed } else { Cause::Disarmed };
    }
    if seen(Trigger::Fired) {
        return match never_empty {
            false => facts.progress_cause(),
            true if owner.is_busy() && is_awake => Cause::Busy,
            true if has_no_connections => Cause::Forgotten,
            true => Cause::NotRearmed,
        };
    }
    let absent = match serves {
        _ if owner.sibling_watched => Cause::UnwatchedMember,
        true => Cause::Deregistered,
        false => Cause::Unwatched,
    };
    match never_empty {
        // A poll or accept between two samples may watch it. Only a non-empty queue proves otherwise.
        false if owner.activities.is_empty() || owner.activities.iter().any(may_watch_unseen) => {
            facts.progress_cause()
        }
        false => absent,
        true if owner.sibling_watched => absent,
        true if owner.is_busy() && owner.is_in_kernel() => Cause::NeverSleeps,
        true if owner.is_busy() => Cause::Busy,
        // It accepts with blocking calls, and a thread is blocked in another.
        true if owner.activities.iter().any(|activity| matches!(activity, Activity::Other(_))) => {
            Cause::HeldUp
        }
        true => absent,
    }
}

/// Returns whether a thread with this activity may watch the listener in a way that is not visible.
fn may_watch_unseen(activity: &Activity) -> bool {
    // A thread blocked on a timer may call a non-blocking accept periodically.
    !matches!(activity, Activity::EpollWait(_) | Activity::Stopped)
}

impl Owner {
    fn is_busy(&self) -> bool {
        self.cpu >= CPU_BUSY || self.never_asleep
    }

    fn is_in_kernel(&self) -> bool {
        self.cpu_system >= CPU_IN_KERNEL * self.cpu
    }

    fn is_stopped(&self) -> bool {
        !self.activities.is_empty() && self.activities.iter().all(|activity| *activity == Activity::Stopped)
    }
}

impl Facts {
    /// Returns whether connections were waiting in every sample.
    fn never_empty(&self) -> bool {
        self.samples.iter().all(|sample| sample.queued > 0)
    }

    fn makes_progress(&self) -> bool {
        !self.never_empty() || self.any_accepted == Some(true)
    }

    /// Returns whether the owner was blocked too often on a non-empty queue to be about to accept.
    fn slept_on_queue(&self) -> bool {
        let slept = self.samples.iter().filter(|sample| sample.asleep == Some(true)).count();
        #[expect(clippy::cast_precision_loss, reason = "a few dozen samples")]
        let enough = slept as f64 >= SLEPT_SHARE * self.samples.len() as f64;
        self.never_empty() && enough
    }

    fn progress_cause(&self) -> Cause {
        if self.dropped.is_some_and(|dropped| dropped > 0) {
            Cause::Dropping
        } else if self.samples.iter().any(|sample| sample.queued >= self.capacity) {
            Cause::Full
        } else if self.never_empty() {
            Cause::Taking
        } else {
            Cause::Drained
        }
    }

    fn exhausted(&self, owner: &Owner) -> Option<Cause> {
        if owner.fd_table.is_some_and(|fd_table| fd_table.is_full()) {
            return Some(Cause::DescriptorTable);
        }
        self.system_files.is_some_and(|fd_table| fd_table.is_full()).then_some(Cause::FileTable)
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
