//! Derives the verdict of the stress test from its facts. Pure: no I/O, no clock.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::client::Behavior;
use super::observer::DoctorSummary;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StressVerdict {
    /// At its limit, connections wait in the queue and are accepted later.
    WaitsWell,
    /// At its limit, connections are refused; below it, accepted again.
    RefusesWell,
    /// All connections were accepted.
    NoLimit,
    /// Below its limit it leaves connections in the queue.
    Strands,
    /// It leaves connections in the queue of a listener that no thread ever watched.
    StrandsUnpolled,
    /// At its limit its waits return at once, again and again.
    Spins,
    /// At its limit a thread keeps running, and its system calls were not counted.
    Busy,
    Undetermined(UndeterminedReason),
}

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UndeterminedReason {
    /// The first client was not answered.
    NotServing,
    /// It does not close connections after the client's FIN.
    NoPlaceFreed,
    /// It accepts connections, but does not answer.
    TakenInSilence,
    /// The queue is not visible.
    QueueHidden,
    /// It accepts nothing, and its threads do not sleep in epoll.
    Awake,
    /// It is still paused below its limit.
    StillPaused,
    /// It accepts, but too slowly.
    Slow,
    /// It refuses all connections below its limit.
    StillRefuses,
    /// It closed its listener during the test.
    Gone,
}

/// How the server behaved at its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    #[default]
    NotMet,
    Waits,
    Refuses,
}

/// The number of clients by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ClientCounts {
    #[serde(rename = "came")]
    pub(crate) connected: usize,
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) unanswered: usize,
}

/// The observations of the stress test.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// The listener was closed during the test.
    pub(crate) gone: bool,
    /// How the server treated the first client; `None` if it was not answered.
    #[serde(rename = "manner")]
    pub(crate) behavior: Option<Behavior>,
    pub(crate) held: usize,
    pub(crate) limit: Limit,
    /// The clients of the flood, before half of them disconnect.
    pub(crate) flood: ClientCounts,
    pub(crate) bursts: usize,
    /// The clients of the flood that disconnected.
    pub(crate) quit: usize,
    /// The diagnosis at the limit, after they disconnected.
    pub(crate) full: DoctorSummary,
    /// The held connections that the server closed after the client's FIN.
    pub(crate) freed: usize,
    /// The number of closed connections after which the queue drained; `None` if it did not, or was empty.
    pub(crate) resumed_with: Option<usize>,
    /// The remaining clients of the flood, below the limit.
    pub(crate) stayed: ClientCounts,
    /// No connection was accepted for `patience`, although some waited below the limit.
    pub(crate) stalled: bool,
    /// The queue length before the last stage.
    pub(crate) left_behind: Option<u32>,
    #[serde(rename = "newcomers")]
    pub(crate) new_connections: ClientCounts,
    /// The diagnosis at the end.
    pub(crate) after: DoctorSummary,
}

pub(crate) fn evaluate(facts: &Facts) -> StressVerdict {
    if facts.gone {
        return StressVerdict::Undetermined(UndeterminedReason::Gone);
    }
    if facts.behavior.is_none() {
        return StressVerdict::Undetermined(UndeterminedReason::NotServing);
    }
    let any_waiting = facts.flood.unanswered > 0 || facts.left_behind.is_some_and(|count| count > 0);
    if any_waiting && (facts.full.spins() || facts.after.spins()) {
        return StressVerdict::Spins;
    }
    if any_waiting && (facts.full.is_busy_uncounted() || facts.after.is_busy_uncounted()) {
        return StressVerdict::Busy;
    }
    if facts.new_connections.unanswered > 0 || facts.left_behind.is_some_and(|count| count > 0) {
        return failed(facts);
    }
    let any_answered = facts.new_connections.answered + facts.stayed.answered > 0;
    match facts.limit {
        _ if !any_answered => StressVerdict::Undetermined(UndeterminedReason::StillRefuses),
        _ if facts.flood.refused > 0 => StressVerdict::RefusesWell,
        _ if facts.flood.unanswered > 0 => StressVerdict::WaitsWell,
        Limit::NotMet => StressVerdict::NoLimit,
        Limit::Refuses => StressVerdict::RefusesWell,
        Limit::Waits => StressVerdict::WaitsWell,
    }
}

/// Derives the verdict if clients were left without an answer.
fn failed(facts: &Facts) -> StressVerdict {
    use crate::doctor::diagnose::Verdict;

    let Some(left_behind) = facts.left_behind else {
        return StressVerdict::Undetermined(UndeterminedReason::QueueHidden);
    };
    let is_empty = left_behind == 0 && facts.after.queued.unwrap_or(0) == 0;
    StressVerdict::Undetermined(match facts.after.verdict {
        _ if facts.limit != Limit::NotMet && facts.held > 0 && facts.freed == 0 => {
            UndeterminedReason::NoPlaceFreed
        }
        _ if is_empty => UndeterminedReason::TakenInSilence,
        _ if !facts.stalled && left_behind > 0 => UndeterminedReason::Slow,
        Some(Verdict::AtLimit) if facts.after.is_occupied() => UndeterminedReason::Awake,
        Some(Verdict::AtLimit) => UndeterminedReason::StillPaused,
        Some(Verdict::Busy | Verdict::Stopped) => UndeterminedReason::Awake,
        // A listener that is deregistered only at the limit was watched before.
        Some(Verdict::NotAccepting) if facts.full.is_unwatched() && facts.after.is_unwatched() => {
            return StressVerdict::StrandsUnpolled;
        }
        _ if facts.after.owner_asleep == Some(false) => UndeterminedReason::Awake,
        _ => return StressVerdict::Strands,
    })
}

impl StressVerdict {
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::WaitsWell | Self::RefusesWell | Self::NoLimit => 0,
            Self::Strands | Self::StrandsUnpolled => 10,
            Self::Spins => 13,
            Self::Busy => 16,
            Self::Undetermined(_) => 20,
        }
    }

    /// Returns the name of the verdict in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WaitsWell => "waits_well",
            Self::RefusesWell => "refuses_well",
            Self::NoLimit => "no_limit",
            Self::Strands | Self::StrandsUnpolled => "strands",
            Self::Spins => "spins",
            Self::Busy => "busy",
            Self::Undetermined(_) => "undetermined",
        }
    }

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::WaitsWell => "at its limit connections wait, and are accepted when others close",
            Self::RefusesWell => "at its limit connections are refused, and served again when others close",
            Self::NoLimit => "all connections were accepted; no limit was reached",
            Self::Strands | Self::StrandsUnpolled => {
                "below its limit the server leaves connections in the queue"
            }
            Self::Spins => "at its limit the server wakes again and again without accepting",
            Self::Busy => "at its limit a thread of the server keeps running without accepting",
            Self::Undetermined(_) => "the test is inconclusive",
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::WaitsWell => {
                "At the limit connections stayed in the accept queue while the server's threads slept. \
                 After a connection closed, the server drained the queue, including dead connections, and \
                 answered new ones."
            }
            Self::RefusesWell => {
                "At the limit connections were closed or reset in time, the queue was empty at the end, \
                 and new connections were answered after a held connection closed."
            }
            Self::NoLimit => {
                "The server accepted all held connections and the whole flood. To test its limit, raise \
                 --hold above it. If it has none, its descriptor limit (`ulimit -n`) is one."
            }
            Self::Strands => {
                "The server was below its limit, the accept queue was not empty, and none was accepted: a \
                 lost wakeup. Either the listener is edge-triggered and the accept loop returned before \
                 EAGAIN, or the listener was disarmed at the limit and not rearmed when a connection \
                 closed."
            }
            Self::StrandsUnpolled => {
                "One of its listeners on this address is in no epoll, and no thread waits in accept for \
                 it. The kernel still assigns it a share of the connections, which are never accepted."
            }
            Self::Spins => {
                "At the limit the waits of a thread returned at once, again and again: a level-triggered \
                 listener stays armed at the limit, or a failing accept is retried without back-off."
            }
            Self::Busy => {
                "At the limit, without requests to serve, its busiest thread kept running. It computes, or its \
                 waits return at once (it spins): its system calls were not counted."
            }
            Self::Undetermined(reason) => reason.explanation(),
        }
    }

    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Strands => {
                "On every path of the accept loop call accept4 until EAGAIN before waiting again, also \
                 after a refusal, at the limit and after an error, and resume accepting when a connection \
                 closes. `acceptq doctor` shows the server in this state while connections are left in the \
                 queue."
            }
            Self::StrandsUnpolled => {
                "Register each listener on the address (SO_REUSEPORT) with an event loop, or close it; \
                 `acceptq doctor` shows which one it is."
            }
            Self::Spins => {
                "Disarm the listener at the limit (a mask without EPOLLIN) and rearm it when a connection \
                 closes; back off after an error of accept4."
            }
            Self::Busy => "Run this as root, or count its system calls: strace -c -f -p PID.",
            _ => "",
        }
    }
}

impl UndeterminedReason {
    fn explanation(self) -> &'static str {
        match self {
            Self::NotServing => {
                "The first client was not answered: the server was at its limit, stranded or paused before \
                 the test. Run `acceptq doctor` to find out, restart the server, and run this again."
            }
            Self::NoPlaceFreed => {
                "The held clients sent FINs, and the server did not close their connections: it does not \
                 watch them, or keeps them on purpose. It was never below its limit."
            }
            Self::TakenInSilence => {
                "The queue is empty, so the new connections were accepted, but they were not answered. If \
                 the server answers only requests of its own protocol, set one with --send."
            }
            Self::QueueHidden => {
                "The new connections were not answered, and the accept queue of a server on another \
                 machine or in another network namespace is not visible. Run this where the server runs."
            }
            Self::Awake => {
                "Connections wait and none is accepted, but the server's threads do not sleep in \
                 epoll_wait: they are busy or blocked in other calls. Run `acceptq doctor`."
            }
            Self::StillPaused => {
                "The server is below its limit and still paused. It may wait for another event, or have \
                 failed to rearm its listener."
            }
            Self::Slow => {
                "The server accepted continuously, but not all connections in time: it is slow, or other \
                 clients use it too."
            }
            Self::Gone => {
                "The server closed its listener during the test: it exited or restarted. Check its log."
            }
            Self::StillRefuses => {
                "All connections were refused, also below the limit. The server may count closed \
                 connections for a while, or refuse for another reason."
            }
        }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
