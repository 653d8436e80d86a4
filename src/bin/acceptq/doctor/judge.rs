//! From the facts to the verdict. Pure: no I/O, no clock.
//!
//! Order matters. What explains the most is asked first: a server out of descriptors also spins or sleeps, a
//! paused one also overflows. Whatever takes connections is well, unless it drops some.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::facts::{Facts, Owner, Watch};
use crate::see::{Doing, How};

/// From here on a thread counts as burning its processor, even if it was seen asleep: one that waits for
/// events uses less than a hundredth. One that was never seen asleep does so with whatever it gets.
const CPU_BUSY: f64 = 0.15;
/// A loop of failing or useless system calls spends far more than this in the kernel, a computation less.
const CPU_IN_KERNEL: f64 = 0.1;
/// A loop that is woken for nothing, and rests a little each time, still sleeps this often in a second.
const RESTLESS: f64 = 40.0;
/// Of the looks that found connections waiting, the share in which the owner must have slept on them.
const MOSTLY: f64 = 0.8;

/// What is the matter. The worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Healthy,
    Backpressure,
    Undetermined,
    Overflowing,
    NobodyPolls,
    Stuck,
    Spinning,
    Exhausted,
    Stranded,
}

/// Why the verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// Nothing waits for long.
    Drained,
    /// Connections wait, and are taken.
    Taking,

    /// Registered with a mask that hears no arrivals.
    Silenced,
    /// In no epoll, though its owner serves connections that came by it.
    Deregistered,
    /// One-shot, fired, not armed again, while its owner serves connections that came by it.
    NotRearmed,

    /// Connections wait, are not taken, and the owner may not be seen.
    OwnerHidden,
    /// The same, and every process here could be looked into.
    OwnerElsewhere,
    /// What was seen does not go together.
    Contradiction,
    /// The listener went away meanwhile.
    NothingSeen,

    /// Connections were dropped.
    Dropping,
    /// The queue was full.
    Full,

    /// In no epoll, in no accept, and its owner serves nobody who came by it.
    Unwatched,
    /// In no epoll, while another listener of its owner on the same address is in one.
    UnwatchedMember,

    /// No thread waits for its events: they sleep in something else.
    Elsewhere,
    /// In no epoll: it is accepted from by a blocking call, and the thread is held up in another.
    HeldUp,
    /// A thread computes and does not come back to the loop.
    Busy,
    /// All threads are stopped by a signal or a debugger.
    Stopped,

    /// Woken again and again for connections that it does not take.
    NeverSleeps,
    /// The same, with a little rest each time.
    Restless,

    /// The process has no free descriptor.
    DescriptorTable,
    /// The machine has no free file.
    FileTable,

    /// Edge-triggered, and asleep on a queue that is not empty.
    Edge,
    /// The same; the edge is that of an epoll that watches the listener's.
    NestedEdge,
    /// Exclusive: whoever was told has not taken them, and the others hear nothing.
    Exclusive,
    /// One-shot, fired, and nothing is left whose end could lead to arming it.
    Forgotten,
    /// A mask that hears no arrivals, and nothing is left whose end could lead to another.
    NotResumed,
}

impl Cause {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Drained | Self::Taking => Verdict::Healthy,
            Self::Silenced | Self::Deregistered | Self::NotRearmed => Verdict::Backpressure,
            Self::OwnerHidden | Self::OwnerElsewhere | Self::Contradiction | Self::NothingSeen => {
                Verdict::Undetermined
            }
            Self::Dropping | Self::Full => Verdict::Overflowing,
            Self::Unwatched | Self::UnwatchedMember => Verdict::NobodyPolls,
            Self::Elsewhere | Self::HeldUp | Self::Busy | Self::Stopped => Verdict::Stuck,
            Self::NeverSleeps | Self::Restless => Verdict::Spinning,
            Self::DescriptorTable | Self::FileTable => Verdict::Exhausted,
            Self::Edge | Self::NestedEdge | Self::Exclusive | Self::Forgotten | Self::NotResumed => {
                Verdict::Stranded
            }
        }
    }
}

/// The verdict's cause.
pub(crate) fn judge(facts: &Facts) -> Cause {
    if facts.samples.is_empty() {
        return Cause::NothingSeen;
    }
    let Some(owner) = &facts.owner else {
        return match facts.flows() {
            true => facts.flowing(),
            false if facts.all_seen => Cause::OwnerElsewhere,
            false => Cause::OwnerHidden,
        };
    };
    let is_armed = owner.accepts || owner.watches.iter().any(|watch| watch.is_armed());
    match is_armed {
        true => armed(facts, owner),
        false => deaf(facts, owner),
    }
}

/// Some registration, or a blocked accept, hears arrivals.
fn armed(facts: &Facts, owner: &Owner) -> Cause {
    let slept = facts.slept_on_it();
    // Asleep in a call for one client after the other is slow, and no strand.
    if facts.flows() && (!slept || owner.works_in_calls) {
        return facts.flowing();
    }
    if let Some(exhausted) = facts.exhausted(owner) {
        return exhausted;
    }
    let watches: Vec<Watch> = owner.watches.iter().copied().filter(|watch| watch.is_armed()).collect();
    let missed =
        watches.iter().filter(|watch| watch.awaited != Some(false)).find_map(|watch| may_miss(*watch));
    if owner.is_stopped() {
        return Cause::Stopped;
    }
    if owner.burns() && !slept {
        let is_told = owner.accepts || watches.iter().any(|watch| may_miss(*watch).is_none());
        if is_told && owner.is_in_kernel() {
            return Cause::NeverSleeps;
        }
        // A loop that also serves others is busy too, and rests in between: it is not held up by them.
        if owner.never_asleep {
            return Cause::Busy;
        }
    }
    match missed {
        Some(cause) => cause,
        // A level-triggered wait on such a queue returns: whoever sleeps all the same was not in that wait.
        None if facts.flows() => facts.flowing(),
        None if watches.iter().any(|watch| watch.awaited == Some(true)) && slept => Cause::Contradiction,
        None if owner.sleeps_per_second >= RESTLESS => Cause::Restless,
        None => Cause::Elsewhere,
    }
}

/// How this registration can leave a queue behind in silence; `None` if it cannot.
fn may_miss(watch: Watch) -> Option<Cause> {
    match watch.how {
        How::Edge => Some(Cause::Edge),
        _ if watch.within_edge => Some(Cause::NestedEdge),
        How::Exclusive => Some(Cause::Exclusive),
        _ => None,
    }
}

/// No epoll hears arrivals, and no thread is seen in accept.
fn deaf(facts: &Facts, owner: &Owner) -> Cause {
    let lingers = facts.lingers();
    if facts.taken == Some(true) {
        return facts.flowing();
    }
    if lingers {
        if let Some(exhausted) = facts.exhausted(owner) {
            return exhausted;
        }
    }
    if owner.is_stopped() && lingers {
        return Cause::Stopped;
    }
    let serves = owner.accepted_alive > 0 && !owner.sibling_watched;
    let seen = |how: How| owner.watches.iter().any(|watch| watch.how == how);
    // Nothing that came by it is left, whoever has it: no end of a connection will arm it.
    let is_idle = !serves && !owner.accepted_elsewhere;
    // Whoever is at work may be about to arm it.
    let works = !facts.slept_on_it();
    if seen(How::Silenced) {
        return if is_idle && !works { Cause::NotResumed } else { Cause::Silenced };
    }
    if seen(How::Fired) {
        return match lingers {
            false => facts.flowing(),
            true if owner.burns() && works => Cause::Busy,
            true if is_idle => Cause::Forgotten,
            true => Cause::NotRearmed,
        };
    }
    let absent = match serves {
        _ if owner.sibling_watched => Cause::UnwatchedMember,
        true => Cause::Deregistered,
        false => Cause::Unwatched,
    };
    match lingers {
        // It may be in a poll or an accept that was not seen; that shows only when connections wait.
        false if owner.doing.is_empty() || owner.doing.iter().any(may_watch_unseen) => facts.flowing(),
        false => absent,
        true if owner.sibling_watched => absent,
        true if owner.burns() && owner.is_in_kernel() => Cause::NeverSleeps,
        true if owner.burns() => Cause::Busy,
        // Accepts by blocking calls, and one of its threads is held up in another.
        true if owner.doing.iter().any(|doing| matches!(doing, Doing::Other(_))) => Cause::HeldUp,
        true => absent,
    }
}

/// Whether a thread at this may be waiting for the listener in a way that cannot be seen.
fn may_watch_unseen(doing: &Doing) -> bool {
    // Asleep in a timer: it may ask again and again without waiting for an answer.
    !matches!(doing, Doing::EpollWait(_) | Doing::Stopped)
}

impl Owner {
    fn burns(&self) -> bool {
        self.cpu >= CPU_BUSY || self.never_asleep
    }

    fn is_in_kernel(&self) -> bool {
        self.cpu_system >= CPU_IN_KERNEL * self.cpu
    }

    fn is_stopped(&self) -> bool {
        !self.doing.is_empty() && self.doing.iter().all(|doing| *doing == Doing::Stopped)
    }
}

impl Facts {
    /// At every look somebody was waiting.
    fn lingers(&self) -> bool {
        self.samples.iter().all(|sample| sample.queued > 0)
    }

    fn flows(&self) -> bool {
        !self.lingers() || self.taken == Some(true)
    }

    /// The owner slept, with the queue not empty, too often for it to be on its way.
    fn slept_on_it(&self) -> bool {
        let slept = self.samples.iter().filter(|sample| sample.asleep == Some(true)).count();
        #[expect(clippy::cast_precision_loss, reason = "a few dozen samples")]
        let enough = slept as f64 >= MOSTLY * self.samples.len() as f64;
        self.lingers() && enough
    }

    fn flowing(&self) -> Cause {
        if self.dropped.is_some_and(|dropped| dropped > 0) {
            Cause::Dropping
        } else if self.samples.iter().any(|sample| sample.queued >= self.capacity) {
            Cause::Full
        } else if self.lingers() {
            Cause::Taking
        } else {
            Cause::Drained
        }
    }

    fn exhausted(&self, owner: &Owner) -> Option<Cause> {
        if owner.table.is_some_and(|table| table.is_full()) {
            return Some(Cause::DescriptorTable);
        }
        self.machine.is_some_and(|table| table.is_full()).then_some(Cause::FileTable)
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
