//! Gates with one piece wrong, behind the acceptors of this crate.

use epoll_acceptor::admission::Until;
use epoll_acceptor::sim::{Action, Setup};

use crate::hall::{Flaw, Rung, Sound, State, Waiter};
use crate::hunt::{Mutant, level, limit, none, once, shed, two};

pub(crate) fn mutants() -> Vec<Mutant> {
    let eagain = level;
    vec![
        Mutant::of_gate::<RateSwallowsRelease>(&["S13"], "P1", limit(1, queued(3)), none()),
        Mutant::of_gate::<ClearsWhileOver>(&["S14"], "P1", limit(2, queued(3)), once(&[Action::Limit(1)])),
        Mutant::of_gate::<CountsElsewhere>(&["S17"], "P4", limit(2, queued(1)), none()),
        Mutant::of_gate::<NoWorkerIdleYet>(&["S18"], "P1", limit(1, queued(1)), none()),
        Mutant::of_gate::<RaisesInSilence>(&["S19"], "P1", limit(0, queued(1)), none()),
        Mutant::of_gate::<WrongThread>(&["S20"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<ChecksBeforeItCounts>(&["S23"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<StartsAtOne>(&["S24"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<StartsAtOne>(&["M6"], "P1", limit(2, queued(3)), none()),
        Mutant::of_gate::<RollbackIsSilent>(
            &["S25"],
            "P11",
            limit(2, two(eagain(1))),
            once(&[Action::Turn(1)]),
        ),
        Mutant::of_gate::<WakesOne>(&["S29"], "P11", limit(1, two(queued(2))), once(&[Action::Steal(0)])),
        Mutant::of_gate::<NoRollback>(&["L2"], "P4", limit(1, queued(2)), none()),
        Mutant::of_gate::<ClosedTwice>(&["L4"], "P4", limit(2, queued(2)), none()),
        Mutant::of_gate::<NeverCounted>(&["L7"], "P4", shed(1, queued(2)), none()),
        Mutant::of_gate::<CancelledTwice>(&["L10"], "P4", limit(2, eagain(1)), none()),
        Mutant::of_gate::<CheckThenTake>(&["L11"], "P3", limit(1, two(queued(1))), once(&[Action::Turn(1)])),
        Mutant::of_gate::<PublishedUncounted>(&["M7"], "P4", limit(1, queued(1)), none()),
        Mutant::of_gate::<OneTooMany>(&["L12"], "P3", limit(1, queued(2)), none()),
        Mutant::of_gate::<LatchNotRebuilt>(&["F17"], "P3", limit(0, queued(2)), none()),
        Mutant::of_gate::<FromTheFirst>(&["M8"], "P11", limit(1, two(queued(3))), none()),
        Mutant::of_gate::<OneFailureForAll>(&["M10"], "P11", limit(3, two(eagain(1))), none()),
        Mutant::of_gate::<NinetyPercent>(&["M11"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<NobodyIsTold>(&["M35"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<LastWakerOnly>(&["M49"], "P11", limit(1, two(queued(2))), none()),
        Mutant::of_gate::<SkipsEveryOther>(
            &["M50"],
            "P11",
            limit(1, two(queued(2))),
            once(&[Action::Steal(0)]),
        ),
    ]
}

fn queued(queued: u32) -> Setup {
    Setup { queued, ..Setup::plain() }
}

/// A release wakes nobody while the rate limit holds; that would end by a timer, which was not set.
struct RateSwallowsRelease;

impl Flaw for RateSwallowsRelease {
    fn take(state: &mut State, who: u32) -> bool {
        let room = Sound::take(state, who);
        state.memory += u32::from(room);
        room
    }

    fn wake(state: &mut State, given: Until) -> Rung {
        const RATE: u32 = 2;
        if state.memory < RATE && Self::has_room(state) { Self::ring(state, given) } else { Rung::new() }
    }
}

/// A release takes everybody out of the line, and rings only if that left room.
struct ClearsWhileOver;

impl Flaw for ClearsWhileOver {
    fn wake(state: &mut State, given: Until) -> Rung {
        let rung = Self::ring(state, given);
        if Self::has_room(state) { rung } else { Rung::new() }
    }
}

/// The connection moves to another listener, the count stays with the first one.
struct CountsElsewhere;

impl Flaw for CountsElsewhere {
    fn give(state: &mut State, given: Until) -> Rung {
        state.memory = state.memory.wrapping_sub(1);
        Self::wake(state, given)
    }
}

/// Closed until the first worker is idle; and only a connection that ends makes a worker say so.
struct NoWorkerIdleYet;

impl Flaw for NoWorkerIdleYet {
    fn has_room(state: &State) -> bool {
        state.memory > 0 && state.in_use < state.limit
    }

    fn give(state: &mut State, given: Until) -> Rung {
        state.memory = 1;
        state.in_use -= 1;
        Self::wake(state, given)
    }
}

/// There is room again, and nobody is told.
struct RaisesInSilence;

impl Flaw for RaisesInSilence {
    fn limit(state: &mut State, limit: u32) -> Rung {
        state.limit = limit;
        Rung::new()
    }
}

/// Wakes only from the listener's own thread, and connections end on others.
struct WrongThread;

impl Flaw for WrongThread {
    fn give(state: &mut State, given: Until) -> Rung {
        state.in_use -= 1;
        if given == Until::Release { Rung::new() } else { Self::wake(state, given) }
    }
}

/// Looks for room while the connection that ends is still counted.
struct ChecksBeforeItCounts;

impl Flaw for ChecksBeforeItCounts {
    fn give(state: &mut State, given: Until) -> Rung {
        let rung = Self::wake(state, given);
        state.in_use -= 1;
        rung
    }
}

/// Its counter starts at one, and the release that should wake compares it as if it did not.
struct StartsAtOne;

impl Flaw for StartsAtOne {
    fn give(state: &mut State, given: Until) -> Rung {
        let counter_before = state.in_use + 1;
        state.in_use -= 1;
        if counter_before == state.limit { Self::ring(state, given) } else { Rung::new() }
    }
}

/// A place that was taken and not used comes back without a word.
struct RollbackIsSilent;

impl Flaw for RollbackIsSilent {
    fn cancel(state: &mut State) -> Rung {
        state.in_use -= 1;
        Rung::new()
    }
}

/// A place wakes one of those who wait, and that one may have no use for it.
struct WakesOne;

impl Flaw for WakesOne {
    fn ring(state: &mut State, given: Until) -> Rung {
        let first = state.line.iter().position(|waiter| waiter.waits_for(given));
        first.and_then(|first| state.line.remove(first)).map(|waiter| waiter.bell).into_iter().collect()
    }
}

/// Counts up, finds that it is too much, and does not count down.
struct NoRollback;

impl Flaw for NoRollback {
    fn take(state: &mut State, _: u32) -> bool {
        state.in_use += 1;
        state.in_use <= state.limit
    }
}

/// Closing twice gives back twice.
struct ClosedTwice;

impl Flaw for ClosedTwice {
    fn give(state: &mut State, given: Until) -> Rung {
        state.in_use = state.in_use.saturating_sub(2);
        Self::wake(state, given)
    }
}

/// A refused connection is counted down when it closes, and was never counted up.
struct NeverCounted;

impl Flaw for NeverCounted {
    fn refused(state: &mut State) {
        state.in_use = state.in_use.wrapping_sub(1);
    }
}

/// Who rejects counts down, and so does who called it.
struct CancelledTwice;

impl Flaw for CancelledTwice {
    fn cancel(state: &mut State) -> Rung {
        Self::give(state, Until::Room);
        state.in_use = state.in_use.saturating_sub(1);
        Self::wake(state, Until::Room)
    }
}

/// Looks whether there is room, and counts itself when it comes by again.
struct CheckThenTake;

impl Flaw for CheckThenTake {
    fn take(state: &mut State, who: u32) -> bool {
        state.in_use += u32::from(state.pending.remove(&who));
        let room = Self::has_room(state);
        if room {
            state.pending.insert(who);
        }
        room
    }

    fn give(state: &mut State, given: Until) -> Rung {
        if state.in_use > 0 {
            state.in_use -= 1;
        } else {
            state.pending.pop_first();
        }
        Self::wake(state, given)
    }
}

/// The connection goes to its worker first, and is counted afterwards, if it still is there.
struct PublishedUncounted;

impl Flaw for PublishedUncounted {
    fn take(state: &mut State, _: u32) -> bool {
        state.in_use += std::mem::take(&mut state.memory);
        state.memory = u32::from(Self::has_room(state));
        state.memory > 0
    }

    fn give(state: &mut State, given: Until) -> Rung {
        state.in_use = state.in_use.saturating_sub(1);
        Self::wake(state, given)
    }
}

/// Compares the others with the limit, and forgets itself.
struct OneTooMany;

impl Flaw for OneTooMany {
    fn has_room(state: &State) -> bool {
        state.in_use <= state.limit
    }
}

/// Pausing throws the limit away, resuming does not make it again.
struct LatchNotRebuilt;

impl Flaw for LatchNotRebuilt {
    fn built(state: &mut State) {
        state.memory = u32::from(state.limit == 0);
    }

    fn has_room(state: &State) -> bool {
        let there_is_a_latch = state.memory == 0;
        state.limit > 0 && (!there_is_a_latch || state.in_use < state.limit)
    }
}

/// Wakes whoever comes first in its own list, not whoever has waited longest.
struct FromTheFirst;

impl Flaw for FromTheFirst {
    fn ring(state: &mut State, given: Until) -> Rung {
        state.line.make_contiguous().sort_by_key(|waiter| waiter.who);
        Sound::ring(state, given)
    }
}

/// One who fails closes the gate for everybody, though the others have room.
struct OneFailureForAll;

impl Flaw for OneFailureForAll {
    fn has_room(state: &State) -> bool {
        state.memory == 0 && state.in_use < state.limit
    }

    fn cancel(state: &mut State) -> Rung {
        state.in_use -= 1;
        state.memory = 1;
        Rung::new()
    }

    fn give(state: &mut State, given: Until) -> Rung {
        state.in_use -= 1;
        state.memory = 0;
        Self::wake(state, given)
    }
}

/// Opens below nine tenths of the limit; in whole numbers, of one that is none.
struct NinetyPercent;

impl Flaw for NinetyPercent {
    fn wake(state: &mut State, given: Until) -> Rung {
        if state.in_use < state.limit * 90 / 100 { Self::ring(state, given) } else { Rung::new() }
    }
}

/// Whoever waits for a place waits for something that is never said.
struct NobodyIsTold;

impl Flaw for NobodyIsTold {
    fn ring(_: &mut State, _: Until) -> Rung {
        Rung::new()
    }
}

/// Remembers one who waits: the last.
struct LastWakerOnly;

impl Flaw for LastWakerOnly {
    fn enqueue(state: &mut State, waiter: Waiter) {
        state.line.clear();
        state.line.push_back(waiter);
    }
}

/// Removes from the line while it walks along it.
struct SkipsEveryOther;

impl Flaw for SkipsEveryOther {
    fn ring(state: &mut State, _: Until) -> Rung {
        let mut rung = Rung::new();
        let mut at = 0;
        while let Some(waiter) = state.line.remove(at) {
            rung.push(waiter.bell);
            at += 1;
        }
        rung
    }
}
