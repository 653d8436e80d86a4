//! Loops that work without getting anything done.

use std::time::Duration;

use epoll_acceptor::Reserve;
use epoll_acceptor::admission::Wishes;
use epoll_acceptor::drain::{Errno, ErrnoClass, Peek};
use epoll_acceptor::sim::Action;

use crate::desk::{Desk, Logic, Next, Pass, Right, Why};
use crate::hunt::{Mutant, budget, edge, fail, level, limit, none, once, shed, twice, two};
use crate::world::Stream;

pub(crate) fn mutants() -> Vec<Mutant> {
    let exhaust = [Action::Exhaust];
    vec![
        Mutant::of_loop::<ReturnsHungry>(&["B1"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<LogsAndContinues>(&["B2", "M27"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<ReserveTrick>(&["B3"], "P6", budget(4, level(1)), once(&exhaust)),
        Mutant::of_loop::<SomeoneElsesLimit>(&["B4"], "P2", limit(1, two(level(1))), none()),
        Mutant::of_loop::<ResumesOnExit>(&["B5"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<StopsAtDisablesAbove>(&["B6"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<NoBudgetIsNone>(&["B7"], "P2", level(1), none()),
        Mutant::of_loop::<DrainsWhileThrottled>(&["B8"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<UnknownIsFatal>(&["B9"], "P7", level(1), once(&[fail(libc::ENOSYS)])),
        Mutant::of_loop::<TriesAgainOnEmpty>(&["B10"], "P6", budget(4, level(1)), none()),
        Mutant::of_loop::<RearmsAtOnce>(&["B11"], "P2", edge(1), once(&exhaust)),
        Mutant::of_loop::<TimerEachRetry>(&["B12"], "P9", level(1), once(&exhaust)),
        Mutant::of_loop::<AnotherTimer>(
            &["B13"],
            "P9",
            level(1),
            twice(&[Action::Exhaust, Action::Resume(0)]),
        ),
        Mutant::of_loop::<AbortsAreFree>(
            &["B14"],
            "P6",
            budget(2, level(3)),
            once(&[fail(libc::ECONNABORTED)]),
        ),
        Mutant::of_loop::<CountsBeforeItLooks>(&["B15"], "P8", budget(4, shed(1, level(1))), none()),
        Mutant::of_loop::<ThrottleWithoutClearing>(&["M12"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<OnlyEmfile>(&["M28"], "P2", level(1), once(&[fail(libc::ENFILE)])),
        Mutant::of_loop::<NoBackOff>(&["M29"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<SleepsForEveryError>(&["M32"], "P7", level(2), once(&[fail(libc::ECONNABORTED)])),
        Mutant::of_loop::<PausedButPolled>(&["F16"], "P2", level(1), once(&[Action::Pause(0)])),
        Mutant::of_loop::<TrickOnce>(
            &["F19"],
            "P2",
            level(1),
            vec![vec![Action::Exhaust], vec![Action::Tick]],
        ),
        Mutant::of_loop::<Unbounded>(&["F1", "F4"], "P6", budget(2, level(3)), none()),
        Mutant::of_loop::<SheddingIsFree>(&["F2"], "P6", budget(2, shed(1, level(4))), none()),
    ]
}

/// Out of descriptors, back to the wait, which returns at once.
#[derive(Default)]
struct ReturnsHungry;

impl Logic for ReturnsHungry {
    fn exhausted(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Out of descriptors: write a line, go on.
#[derive(Default)]
struct LogsAndContinues;

impl Logic for LogsAndContinues {
    fn exhausted(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Again
    }
}

/// Takes EMFILE for a sign that somebody waits, and tries its reserve descriptor until that one is gone.
#[derive(Default)]
struct ReserveTrick;

impl Logic for ReserveTrick {
    fn charge(&mut self, at: &mut Pass<'_>, failure: Option<Errno>) {
        if failure.is_none_or(|errno| errno.class() != ErrnoClass::Resource) {
            at.left -= 1;
        }
    }

    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        if at.world.peek() == Peek::Empty { Next::Again } else { Right.exhausted(at) }
    }
}

/// At the limit it pauses only if it has filled that itself.
#[derive(Default)]
struct SomeoneElsesLimit;

impl Logic for SomeoneElsesLimit {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        if at.counters.delivered == 0 { Next::Leave } else { Right.full(at) }
    }
}

/// Backs off; and the exit of the same pass sees that there is room, and resumes.
#[derive(Default)]
struct ResumesOnExit {
    backed_off: bool,
}

impl Logic for ResumesOnExit {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        self.backed_off = true;
        Right.exhausted(at)
    }

    fn leaves(&mut self, at: &mut Pass<'_>) {
        if std::mem::take(&mut self.backed_off) {
            at.wake();
        }
    }
}

/// Stops accepting at the limit, and falls silent above it.
#[derive(Default)]
struct StopsAtDisablesAbove;

impl Logic for StopsAtDisablesAbove {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        const LIMIT: u64 = 1;
        if at.counters.delivered > LIMIT { Right.full(at) } else { Next::Leave }
    }
}

/// A budget of -1, "no limit", read as none at all.
#[derive(Default)]
struct NoBudgetIsNone;

impl Logic for NoBudgetIsNone {
    fn built(&mut self, desk: &mut Desk) {
        desk.budget = 0;
    }
}

/// Throttled, it goes round until it is not.
#[derive(Default)]
struct DrainsWhileThrottled;

impl Logic for DrainsWhileThrottled {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        loop {
            if let Reserve::Room(place) = at.world.reserve() {
                at.world.cancel(place);
                return Next::Again;
            }
        }
    }
}

/// An errno it has never heard of ends it.
#[derive(Default)]
struct UnknownIsFatal;

impl Logic for UnknownIsFatal {
    fn class(&self, errno: Errno) -> ErrnoClass {
        match errno.number() {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => ErrnoClass::Resource,
            _ if errno.class() == ErrnoClass::Resource => ErrnoClass::Fatal,
            _ => errno.class(),
        }
    }

    fn dead(&mut self, at: &mut Pass<'_>) -> Next {
        at.die()
    }
}

/// An empty queue is an error like others, after which one tries again.
#[derive(Default)]
struct TriesAgainOnEmpty;

impl Logic for TriesAgainOnEmpty {
    fn charge(&mut self, at: &mut Pass<'_>, failure: Option<Errno>) {
        at.left -= u32::from(failure.is_none());
    }

    fn empty(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Again
    }
}

/// Every end of a series of accepts starts the next one, out of descriptors or not.
#[derive(Default)]
struct RearmsAtOnce;

impl Logic for RearmsAtOnce {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.tell_me_again();
        Next::Leave
    }
}

/// Goes on after a shortage as often as the backlog is long, and each time sets a timer.
#[derive(Default)]
struct TimerEachRetry;

impl Logic for TimerEachRetry {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        for _ in 0..at.budget {
            at.back_off();
        }
        Right.exhausted(at)
    }
}

/// Whether a timer runs already it looks up in a flag that is never set.
#[derive(Default)]
struct AnotherTimer;

impl Logic for AnotherTimer {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if at.alarm_is_due() || wishes.rung {
            return Right.begin(at, wishes);
        }
        at.back_off();
        Next::Leave
    }
}

/// Connections that went away do not count.
#[derive(Default)]
struct AbortsAreFree;

impl Logic for AbortsAreFree {
    fn charge(&mut self, at: &mut Pass<'_>, failure: Option<Errno>) {
        at.left -= u32::from(failure.is_none_or(|errno| errno.class() != ErrnoClass::Consumed));
    }
}

/// Counts an accept as a connection dropped before it looks whether there was one.
#[derive(Default)]
struct CountsBeforeItLooks;

impl Logic for CountsBeforeItLooks {
    fn empty(&mut self, at: &mut Pass<'_>) -> Next {
        at.counters.refused += 1;
        at.counters.refused_full += 1;
        Next::Again
    }
}

/// As long as something is ready it accepts; over the limit accepting does nothing, not even to what is
/// ready.
#[derive(Default)]
struct ThrottleWithoutClearing;

impl Logic for ThrottleWithoutClearing {
    fn full(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Again
    }
}

/// One errno of the shortages backs off, the others return.
#[derive(Default)]
struct OnlyEmfile;

impl Logic for OnlyEmfile {
    fn failed(&mut self, at: &mut Pass<'_>, errno: Errno) -> Next {
        match errno.class() {
            ErrnoClass::Resource if errno.number() != libc::EMFILE => Next::Leave,
            _ => Right.failed(at, errno),
        }
    }
}

/// The pause after a shortage covers up a problem, so there is none.
#[derive(Default)]
struct NoBackOff;

impl Logic for NoBackOff {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.silence();
        at.set_alarm(Duration::ZERO);
        Next::Leave
    }
}

/// Every error is worth a pause, also that one client has gone away.
#[derive(Default)]
struct SleepsForEveryError;

impl Logic for SleepsForEveryError {
    fn failed(&mut self, at: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Empty { Right.failed(at, errno) } else { at.sleep(Why::Exhausted) }
    }
}

/// Paused it does not accept, and goes on being told.
#[derive(Default)]
struct PausedButPolled;

impl Logic for PausedButPolled {
    fn paused(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Has an answer to the first shortage, and none to the second.
#[derive(Default)]
struct TrickOnce {
    used: bool,
}

impl Logic for TrickOnce {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        if std::mem::replace(&mut self.used, true) { Next::Leave } else { Right.exhausted(at) }
    }
}

/// Accepts as long as there is anybody.
#[derive(Default)]
struct Unbounded;

impl Logic for Unbounded {
    fn charge(&mut self, _: &mut Pass<'_>, _: Option<Errno>) {}
}

/// Refused connections do not count.
#[derive(Default)]
struct SheddingIsFree;

impl Logic for SheddingIsFree {
    fn shed(&mut self, at: &mut Pass<'_>, stream: Stream) -> Next {
        at.left += 1;
        at.refuse(stream);
        Next::Again
    }
}
