//! From what was seen to the verdict. Pure: no I/O, no clock.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::client::Manner;
use super::sight::Seen;

/// How the server came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// At its limit newcomers wait, and are taken when it is their turn.
    WaitsWell,
    /// At its limit newcomers are sent away at once, and taken again when there is room.
    RefusesWell,
    /// It took everybody.
    NoLimit,
    Strands,
    /// The same, at a listener that nobody ever watched.
    StrandsUnpolled,
    Spins,
    Undetermined(Unseen),
}

/// What stood in the way of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unseen {
    /// Not even the first client was answered.
    NotServing,
    /// It closes nobody whose client has left: no place has become free.
    NoPlaceFreed,
    /// It takes connections, and does not answer.
    TakenInSilence,
    /// The queue of a server elsewhere cannot be seen.
    QueueHidden,
    /// Nothing is taken, and its threads are not asleep.
    Awake,
    /// It still does not listen, on purpose, though places are free.
    StillPaused,
    /// It goes on taking some, and others wait.
    Slow,
    /// It refuses everybody, though places are free.
    StillRefuses,
    /// It closed its listener meanwhile.
    Gone,
}

/// How the limit made itself known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    #[default]
    NotMet,
    Waits,
    Refuses,
}

/// Clients, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) came: usize,
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) unanswered: usize,
}

/// All that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// The listener was closed meanwhile.
    pub(crate) gone: bool,
    /// How the first client was treated; `None` if it was not answered.
    pub(crate) manner: Option<Manner>,
    pub(crate) held: usize,
    pub(crate) limit: Limit,
    /// Those who came at once, before any of them left.
    pub(crate) flood: Tally,
    /// In how many crowds they came.
    pub(crate) bursts: usize,
    /// How many of these left.
    pub(crate) quit: usize,
    /// At the limit, when they had left.
    pub(crate) full: Seen,
    /// How many of the held were let go, and closed by the server.
    pub(crate) freed: usize,
    /// With so many places free, those who waited were taken; `None` if they were not, or if nobody waited.
    pub(crate) resumed_with: Option<usize>,
    /// Of the flood, when places were free again, those who had stayed.
    pub(crate) stayed: Tally,
    /// Nothing was taken for as long as a client waits, though somebody waited and places were free.
    pub(crate) stalled: bool,
    /// How many wait in the end, before the newcomers.
    pub(crate) left_behind: Option<u32>,
    pub(crate) newcomers: Tally,
    /// In the end.
    pub(crate) after: Seen,
}

/// The verdict.
pub(crate) fn judge(facts: &Facts) -> Outcome {
    if facts.gone {
        return Outcome::Undetermined(Unseen::Gone);
    }
    if facts.manner.is_none() {
        return Outcome::Undetermined(Unseen::NotServing);
    }
    let someone_waits = facts.flood.unanswered > 0 || facts.left_behind.is_some_and(|count| count > 0);
    if someone_waits && (facts.full.spins() || facts.after.spins()) {
        return Outcome::Spins;
    }
    if facts.newcomers.unanswered > 0 || facts.left_behind.is_some_and(|count| count > 0) {
        return failed(facts);
    }
    let somebody_answered = facts.newcomers.answered + facts.stayed.answered > 0;
    match facts.limit {
        _ if !somebody_answered => Outcome::Undetermined(Unseen::StillRefuses),
        _ if facts.flood.refused > 0 => Outcome::RefusesWell,
        _ if facts.flood.unanswered > 0 => Outcome::WaitsWell,
        Limit::NotMet => Outcome::NoLimit,
        Limit::Refuses => Outcome::RefusesWell,
        Limit::Waits => Outcome::WaitsWell,
    }
}

/// Somebody was left without an answer.
fn failed(facts: &Facts) -> Outcome {
    use crate::doctor::judge::Verdict;

    let Some(left_behind) = facts.left_behind else { return Outcome::Undetermined(Unseen::QueueHidden) };
    let is_empty = left_behind == 0 && facts.after.queued.unwrap_or(0) == 0;
    Outcome::Undetermined(match facts.after.verdict {
        _ if facts.limit != Limit::NotMet && facts.held > 0 && facts.freed == 0 => Unseen::NoPlaceFreed,
        _ if is_empty => Unseen::TakenInSilence,
        _ if !facts.stalled && left_behind > 0 => Unseen::Slow,
        Some(Verdict::Backpressure) => Unseen::StillPaused,
        Some(Verdict::Stuck) => Unseen::Awake,
        // One that was taken out of its epoll at the limit was watched before.
        verdict @ Some(Verdict::NobodyPolls) if facts.full.verdict == verdict => {
            return Outcome::StrandsUnpolled;
        }
        _ if facts.after.owner_asleep == Some(false) => Unseen::Awake,
        _ => return Outcome::Strands,
    })
}

impl Outcome {
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::WaitsWell | Self::RefusesWell | Self::NoLimit => 0,
            Self::Strands | Self::StrandsUnpolled => 10,
            Self::Spins => 13,
            Self::Undetermined(_) => 20,
        }
    }

    /// As programs know it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::WaitsWell => "waits_well",
            Self::RefusesWell => "refuses_well",
            Self::NoLimit => "no_limit",
            Self::Strands | Self::StrandsUnpolled => "strands",
            Self::Spins => "spins",
            Self::Undetermined(_) => "undetermined",
        }
    }

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::WaitsWell => "at its limit newcomers wait, and are taken when there is room",
            Self::RefusesWell => "at its limit newcomers are sent away, and served again when there is room",
            Self::NoLimit => "it took everybody; no limit was met",
            Self::Strands | Self::StrandsUnpolled => "there is room, and those who wait are not taken",
            Self::Spins => "at its limit it burns processor time over connections that it does not take",
            Self::Undetermined(_) => "how it came through cannot be told",
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::WaitsWell => {
                "Those who found it full stayed in the accept queue while its threads slept; when a place \
                 was free, the queue was emptied, the dead in it too, and newcomers were answered."
            }
            Self::RefusesWell => {
                "Those who found it full were closed or reset within the time allowed, nobody was left \
                 behind in the queue, and newcomers were answered when a place was free."
            }
            Self::NoLimit => {
                "All who were held and all of the flood were taken. If the server has a limit, it is \
                 higher: raise --hold above it. Without a limit, descriptors are one: --hold above its \
                 `ulimit -n`."
            }
            Self::Strands => {
                "Places had become free, the accept queue was not empty, and nothing was taken from it. The \
                 accept loop went back to its wait before it had emptied the queue, and is not told of it \
                 again: an edge-triggered registration and a `return` before EAGAIN, or a listener that was \
                 disarmed at the limit and not armed when a place was free."
            }
            Self::StrandsUnpolled => {
                "One of its listeners on this address is in no epoll, and no thread waits in accept for it. \
                 The kernel gives it a share of the clients all the same, and they wait for good, whatever \
                 the accept loop does."
            }
            Self::Spins => {
                "It was full, nobody asked for anything, and yet its busiest thread did not rest: a \
                 level-triggered listener that stays armed at the limit, or a failing accept that is tried \
                 again at once."
            }
            Self::Undetermined(unseen) => unseen.explanation(),
        }
    }

    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Strands => {
                "Let no path of the accept loop end before accept4 says EAGAIN, refusals, the limit and \
                 errors included, and accept again when a place becomes free. As long as anybody is left \
                 in the queue, `acceptq doctor` shows the server in that state; each newcomer's wake-up \
                 takes one of them."
            }
            Self::StrandsUnpolled => {
                "Give each listener on the address (SO_REUSEPORT) to an event loop, or close it; `acceptq \
                 doctor` tells which one it is."
            }
            Self::Spins => {
                "Disarm the listener at the limit (no EPOLLIN in its mask) and arm it when a place is free; \
                 after an error of accept4 wait a little."
            }
            _ => "",
        }
    }
}

impl Unseen {
    fn explanation(self) -> &'static str {
        match self {
            Self::NotServing => {
                "The very first client was not answered: the server was full, stranded or deaf before it \
                 began, and `acceptq doctor` tells which. Start it anew for another try."
            }
            Self::NoPlaceFreed => {
                "Those who were held have left, and the server has not closed their connections: it does \
                 not watch them, or keeps them on purpose. No place has become free, so nobody could be \
                 taken."
            }
            Self::TakenInSilence => {
                "The queue is empty, so the newcomers were taken, but they got no answer. If the server \
                 speaks only when it is spoken to in its own language, give it a request with --send."
            }
            Self::QueueHidden => {
                "The newcomers were not answered, but the accept queue of a server on another machine, or in \
                 another network namespace, cannot be seen. Run it where the server is."
            }
            Self::Awake => {
                "Connections wait and are not taken, but the server's threads are not asleep in their \
                 epoll: they are held up in something else. Ask `acceptq doctor`."
            }
            Self::StillPaused => {
                "Places have become free, and the server still does not listen. It may wait for something \
                 else than free places, or have forgotten to arm its listener."
            }
            Self::Slow => {
                "Connections were taken all the time, but not all of them in the time allowed: the server \
                 is slow, or others use it, too."
            }
            Self::Gone => {
                "The server closed its listener meanwhile: it ended, or was started anew. What it told \
                 before that, if anything, is in its log."
            }
            Self::StillRefuses => {
                "Everybody was refused, also when places were free. It may count those who have left for a \
                 while, or refuse for another reason."
            }
        }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
