//! The decision table: derives the verdict from the facts. Pure: no I/O, no clock.
//!
//! The first rule that holds decides. The order matters: a server out of descriptors also spins or sleeps, so
//! the more specific cause comes first. A stall with a hidden owner, contradictory facts and a closed listener are
//! `Undetermined`.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::facts::Facts;
use super::signs::Sign::{self, *};
use super::signs::Signs;

/// The verdict on a listener. The worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Healthy,
    Accepting,
    Idle,
    AtLimit,
    Undetermined,
    Slow,
    Overflow,
    Busy,
    NotReading,
    NotAccepting,
    Refusing,
    Stopped,
    Spinning,
    Exhausted,
    Stranded,
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Confidence {
    /// Another cause can show the same facts.
    Low,
    /// Another cause is unusual.
    Medium,
    /// The facts exclude every other cause known.
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// Connections are accepted, and their data is read.
    Serving,
    /// Connections are accepted; whether they are served is not visible.
    Taking,
    /// As `Taking`, but those that arrived were closed at once.
    ClosesAtOnce,
    /// The server woke about as often as connections arrived in the namespace; none was seen here.
    TooShortToSee,
    /// Nothing arrived.
    NothingArrived,

    /// All processes that accept here are stopped by a signal or a debugger.
    Stopped,
    /// A worker is stopped, and its connections have unread data.
    WorkerStopped,

    /// No free descriptor; connections wait.
    DescriptorTable,
    /// No free descriptor; connections are accepted and closed.
    ClosesWithoutDescriptor,
    /// The system has no free file.
    FileTable,

    /// Its owner watches another listener on the address.
    UnwatchedMember,
    /// In no epoll, no thread in accept, and no connection accepted here is open.
    Unwatched,
    /// Registered by a runtime, and no task calls accept.
    NoTaskAccepts,
    /// One-shot, fired, not rearmed, and no connection is open that could rearm it by closing.
    Forgotten,
    /// A mask without `EPOLLIN`, and no connection is open that could rearm it by closing.
    NotResumed,

    /// The wait returns at once, again and again.
    WaitsReturn,

    /// Edge-triggered, and asleep on a non-empty queue.
    Edge,
    /// As `Edge`, in an outer epoll instance.
    NestedEdge,
    /// Exclusive: the waiter that was woken did not accept, and the kernel wakes no other.
    Exclusive,

    /// A mask without `EPOLLIN`.
    Disarmed,
    /// One-shot, fired, not rearmed; connections are open.
    NotRearmed,
    /// In no epoll, no thread in accept; connections are open.
    WorkersOccupied,

    /// A thread uses the processor and does not accept.
    Computes,
    /// Registered, and its threads are blocked in other calls.
    Blocked,

    /// Accepted connections have unread data.
    Unread,

    /// Connections were dropped.
    Dropping,
    /// The queue was full.
    QueueFull,
    /// As `QueueFull`, while a thread used the processor.
    FullWhileBusy,
    /// The expected wait of a new connection is a second or more.
    FallsBehind,

    /// Connections wait, none is accepted, and the owner is not visible.
    OwnerHidden,
    /// As `OwnerHidden`, although every process of this PID namespace is visible.
    OwnerElsewhere,
    /// The observations contradict each other.
    Contradiction,
    /// The listener was closed.
    NothingSeen,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) cause: Cause,
    pub(crate) confidence: Confidence,
    pub(crate) needs: &'static [Sign],
    pub(crate) excludes: &'static [Sign],
}

const fn rule(
    cause: Cause,
    confidence: Confidence,
    needs: &'static [Sign],
    excludes: &'static [Sign],
) -> Rule {
    Rule { cause, confidence, needs, excludes }
}

/// The table. The last rule always holds.
pub(crate) static RULES: &[Rule] = &{
    use Cause as C;
    use Confidence::{High, Low, Medium};
    [
        rule(C::NothingSeen, High, &[Unseen], &[]),
        rule(C::Stopped, High, &[Stopped], &[]),
        rule(C::DescriptorTable, High, &[DescriptorsFull, Waiting], &[]),
        rule(C::ClosesWithoutDescriptor, Medium, &[DescriptorsFull, Arrived], &[]),
        rule(C::ClosesWithoutDescriptor, Medium, &[DescriptorsLow, ClosedAtOnce], &[Waiting]),
        rule(C::DescriptorTable, Medium, &[DescriptorsFull], &[]),
        rule(C::FileTable, High, &[FilesFull, Waiting], &[Accepted]),
        rule(C::UnwatchedMember, High, &[Sibling, Unwatched], &[Accepted]),
        // Connections wait, and none is accepted.
        rule(C::OwnerElsewhere, High, &[Stalled, AllVisible], &[Owner]),
        rule(C::OwnerHidden, High, &[Stalled], &[Owner]),
        rule(C::WaitsReturn, High, &[Stalled, WaitsCounted], &[Asleep, Disarmed, Fired]),
        rule(C::NoTaskAccepts, Medium, &[Stalled, RuntimeWaits], &[]),
        rule(C::NoTaskAccepts, Low, &[Stalled, Runtime], &[Busy]),
        rule(C::Edge, High, &[Stalled, EdgeWaits], &[Runtime]),
        rule(C::NestedEdge, High, &[Stalled, NestedWaits], &[Runtime]),
        rule(C::Exclusive, Medium, &[Stalled, ExclusiveWaits], &[Runtime]),
        rule(C::Contradiction, High, &[Stalled, LevelWaits], &[Busy]),
        rule(C::NotResumed, Medium, &[Stalled, Disarmed, Asleep], &[Holds]),
        rule(C::WorkersOccupied, Medium, &[Stalled, Unwatched, EachHolds], &[]),
        rule(C::Computes, High, &[Stalled, Busy], &[Disarmed, Asleep]),
        rule(C::Forgotten, Medium, &[Stalled, Fired], &[Holds]),
        rule(C::NotRearmed, Medium, &[Stalled, Fired, Holds], &[]),
        rule(C::WorkersOccupied, Low, &[Stalled, Armed, EachHolds], &[]),
        rule(C::Blocked, Medium, &[Stalled, Armed], &[]),
        rule(C::WorkersOccupied, Low, &[Stalled, Unwatched, Holds], &[]),
        rule(C::Unwatched, Medium, &[Stalled, Unwatched], &[]),
        // Paused, even with an empty queue.
        rule(C::Disarmed, Medium, &[Disarmed], &[Accepted]),
        // Connections are accepted, or none waits.
        rule(C::WorkerStopped, High, &[Unread, SomeStopped], &[]),
        rule(C::Computes, Medium, &[Unread, Busy], &[Accepted, Arrived]),
        rule(C::Unread, Medium, &[Unread], &[]),
        rule(C::FullWhileBusy, Medium, &[Dropped, Busy], &[Asleep]),
        rule(C::FullWhileBusy, Medium, &[Full, Busy], &[Asleep]),
        rule(C::Dropping, High, &[Dropped], &[]),
        rule(C::QueueFull, High, &[Full], &[]),
        rule(C::FallsBehind, High, &[Behind], &[]),
        rule(C::WorkersOccupied, Low, &[Unwatched, Holds], &[Waiting, Accepted, Arrived, UnseenWatcher]),
        rule(C::Unwatched, Low, &[Unwatched], &[Waiting, Accepted, Arrived, UnseenWatcher]),
        rule(C::Serving, High, &[Read], &[]),
        rule(C::ClosesAtOnce, Low, &[Arrived, ClosedAtOnce], &[]),
        rule(C::Taking, Medium, &[Arrived], &[]),
        rule(C::TooShortToSee, Low, &[WokeOften], &[]),
        rule(C::NothingArrived, Low, &[Busy], &[]),
        rule(C::NothingArrived, High, &[], &[]),
    ]
};

impl Rule {
    fn holds(&self, signs: Signs) -> bool {
        self.needs.iter().all(|sign| signs.contains(*sign))
            && !self.excludes.iter().any(|sign| signs.contains(*sign))
    }
}

/// Returns the rule that decides.
pub(crate) fn diagnose(facts: &Facts) -> &'static Rule {
    let signs = Signs::of(facts);
    let mut rules = RULES.iter();
    rules.find(|rule| rule.holds(signs)).expect("the last rule always holds")
}

impl Rule {
    pub(crate) fn verdict(&self) -> Verdict {
        self.cause.verdict()
    }

    /// Returns its number in the table, from 1.
    pub(crate) fn number(&self) -> usize {
        RULES.iter().take_while(|rule| !std::ptr::eq(*rule, self)).count() + 1
    }
}

impl Cause {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Serving => Verdict::Healthy,
            Self::Taking | Self::ClosesAtOnce | Self::TooShortToSee => Verdict::Accepting,
            Self::NothingArrived => Verdict::Idle,
            Self::Stopped | Self::WorkerStopped => Verdict::Stopped,
            Self::DescriptorTable | Self::FileTable => Verdict::Exhausted,
            Self::ClosesWithoutDescriptor => Verdict::Refusing,
            Self::UnwatchedMember
            | Self::Unwatched
            | Self::NoTaskAccepts
            | Self::Forgotten
            | Self::NotResumed => Verdict::NotAccepting,
            Self::WaitsReturn => Verdict::Spinning,
            Self::Edge | Self::NestedEdge | Self::Exclusive => Verdict::Stranded,
            Self::Disarmed | Self::NotRearmed | Self::WorkersOccupied => Verdict::AtLimit,
            Self::Computes | Self::Blocked => Verdict::Busy,
            Self::Unread => Verdict::NotReading,
            Self::Dropping | Self::QueueFull | Self::FullWhileBusy => Verdict::Overflow,
            Self::FallsBehind => Verdict::Slow,
            Self::OwnerHidden | Self::OwnerElsewhere | Self::Contradiction | Self::NothingSeen => {
                Verdict::Undetermined
            }
        }
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
