//! Loops that spin.

use std::time::Duration;

use epoll_acceptor::sim::{Action, Peek, Requests};
use epoll_acceptor::socket::{Errno, ErrnoClass};

use crate::calls::Stream;
use crate::hand_loop::{HandLoop, Pass, Reason};
use crate::loop_hooks::{LoopHooks, Next, Reference};
use crate::search::{Mutant, budget, edge, fail, level, limit, none, once, shed, twice, two};

pub(crate) fn mutants() -> Vec<Mutant> {
    let exhaust = [Action::Exhaust];
    vec![
        Mutant::of_loop::<ReturnsToTheWait>(&["B1"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<LogsAndContinues>(&["B2", "M27"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<RetriesWithReserve>(&["B3"], "P6", budget(4, level(1)), once(&exhaust)),
        Mutant::of_loop::<LimitFilledElsewhere>(&["B4"], "P2", limit(1, two(level(1))), none()),
        Mutant::of_loop::<ResumesOnExit>(&["B5"], "P2", level(1), once(&exhaust)),
        Mutant::of_loop::<StopsAtDisablesAbove>(&["B6"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<NoBudgetIsNone>(&["B7"], "P2", level(1), none()),
        Mutant::of_loop::<DrainsWhileThrottled>(&["B8"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<UnknownIsFatal>(&["B9"], "P7", level(1), once(&[fail(libc::ENOSYS)])),
        Mutant::of_loop::<TriesAgainOnEmpty>(&["B10"], "P6", budget(4, level(1)), none()),
        Mutant::of_loop::<RearmsAtOnce>(&["B11"], "P2", edge(1), once(&exhaust)),
        Mutant::of_loop::<TimerEachRetry>(&["B12"], "P9", level(1), once(&exhaust)),
        Mutant::of_loop::<AnotherTimer>(&["B13"], "P9", level(1), twice(&[Action::Exhaust, Action::Shut(0)])),
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
        Mutant::of_loop::<BacksOffOnce>(
            &["F19"],
            "P2",
            level(1),
            vec![vec![Action::Exhaust], vec![Action::Tick]],
        ),
        Mutant::of_loop::<Unbounded>(&["F1", "F4"], "P6", budget(2, level(3)), none()),
        Mutant::of_loop::<SheddingIsFree>(&["F2"], "P6", budget(2, shed(1, level(4))), none()),
    ]
}

/// Out of descriptors, it returns to the wait, which returns at once.
#[derive(Default)]
struct ReturnsToTheWait;

impl LoopHooks for ReturnsToTheWait {
    fn exhausted(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Out of descriptors, it logs the error and continues.
#[derive(Default)]
struct LogsAndContinues;

impl LoopHooks for LogsAndContinues {
    fn exhausted(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Again
    }
}

/// Takes EMFILE as proof of a pending connection, and retries with its reserve descriptor until there is none.
#[derive(Default)]
struct RetriesWithReserve;

impl LoopHooks for RetriesWithReserve {
    fn charge(&mut self, pass: &mut Pass<'_>, failure: Option<Errno>) {
        if failure.is_none_or(|errno| errno.class() != ErrnoClass::Resource) {
            pass.left -= 1;
        }
    }

    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        if pass.calls.peek() == Peek::Empty { Next::Again } else { Reference.exhausted(pass) }
    }
}

/// At the limit it disarms only if its own connections have filled it.
#[derive(Default)]
struct LimitFilledElsewhere;

impl LoopHooks for LimitFilledElsewhere {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        if pass.counters.delivered == 0 { Next::Leave } else { Reference.full(pass) }
    }
}

/// Backs off; the exit of the same pass finds a permit available, and listens.
#[derive(Default)]
struct ResumesOnExit {
    backed_off: bool,
}

impl LoopHooks for ResumesOnExit {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        self.backed_off = true;
        Reference.exhausted(pass)
    }

    fn end(&mut self, pass: &mut Pass<'_>) {
        if std::mem::take(&mut self.backed_off) {
            pass.listen();
        }
    }
}

/// Stops accepting at the limit, and disarms only above it.
#[derive(Default)]
struct StopsAtDisablesAbove;

impl LoopHooks for StopsAtDisablesAbove {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        const LIMIT: u64 = 1;
        if pass.counters.delivered > LIMIT { Reference.full(pass) } else { Next::Leave }
    }
}

/// Reads a budget of -1, "no limit", as zero.
#[derive(Default)]
struct NoBudgetIsNone;

impl LoopHooks for NoBudgetIsNone {
    fn built(&mut self, hand_loop: &mut HandLoop) {
        hand_loop.budget = 0;
    }
}

/// Throttled, it loops until it is not.
#[derive(Default)]
struct DrainsWhileThrottled;

impl LoopHooks for DrainsWhileThrottled {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        loop {
            if let Some(permit) = pass.calls.try_acquire() {
                pass.calls.cancel(permit);
                return Next::Again;
            }
        }
    }
}

/// An errno that it does not know ends it.
#[derive(Default)]
struct UnknownIsFatal;

impl LoopHooks for UnknownIsFatal {
    fn class(&self, errno: Errno) -> ErrnoClass {
        match errno.number() {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => ErrnoClass::Resource,
            _ if errno.class() == ErrnoClass::Resource => ErrnoClass::Fatal,
            _ => errno.class(),
        }
    }
}

/// Retries after an empty queue as after other errors.
#[derive(Default)]
struct TriesAgainOnEmpty;

impl LoopHooks for TriesAgainOnEmpty {
    fn charge(&mut self, pass: &mut Pass<'_>, failure: Option<Errno>) {
        pass.left -= u32::from(failure.is_none());
    }

    fn empty(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Again
    }
}

/// Each end of a series of accepts starts the next, also out of descriptors.
#[derive(Default)]
struct RearmsAtOnce;

impl LoopHooks for RearmsAtOnce {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.rearm();
        Next::Leave
    }
}

/// Continues after EMFILE for the length of the backlog, and sets a timer each time.
#[derive(Default)]
struct TimerEachRetry;

impl LoopHooks for TimerEachRetry {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        for _ in 0..pass.budget {
            pass.back_off();
        }
        Reference.exhausted(pass)
    }
}

/// Checks for a pending timer by a flag that is never set.
#[derive(Default)]
struct AnotherTimer;

impl LoopHooks for AnotherTimer {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if pass.alarm_is_due() || requests.notified() {
            return Reference.begin(pass, requests);
        }
        pass.back_off();
        Next::Leave
    }
}

/// Does not charge the budget for aborted connections.
#[derive(Default)]
struct AbortsAreFree;

impl LoopHooks for AbortsAreFree {
    fn charge(&mut self, pass: &mut Pass<'_>, failure: Option<Errno>) {
        pass.left -= u32::from(failure.is_none_or(|errno| errno.class() != ErrnoClass::Consumed));
    }
}

/// Counts a dropped connection before it checks the result of accept.
#[derive(Default)]
struct CountsBeforeItLooks;

impl LoopHooks for CountsBeforeItLooks {
    fn empty(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.count_refused();
        Next::Again
    }
}

/// Accepts while the listener is ready; over the limit it accepts nothing and does not clear the readiness.
#[derive(Default)]
struct ThrottleWithoutClearing;

impl LoopHooks for ThrottleWithoutClearing {
    fn full(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Again
    }
}

/// Backs off for one of the four errnos of exhaustion, and returns for the others.
#[derive(Default)]
struct OnlyEmfile;

impl LoopHooks for OnlyEmfile {
    fn failed(&mut self, pass: &mut Pass<'_>, errno: Errno) -> Next {
        match errno.class() {
            ErrnoClass::Resource if errno.number() != libc::EMFILE => Next::Leave,
            _ => Reference.failed(pass, errno),
        }
    }
}

/// Retries at once after EMFILE, because a back-off hides a problem.
#[derive(Default)]
struct NoBackOff;

impl LoopHooks for NoBackOff {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.disarm();
        pass.set_alarm(Duration::ZERO);
        Next::Leave
    }
}

/// Backs off after every error, that of one aborted connection included.
#[derive(Default)]
struct SleepsForEveryError;

impl LoopHooks for SleepsForEveryError {
    fn failed(&mut self, pass: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Empty {
            Reference.failed(pass, errno)
        } else {
            pass.block(Reason::Exhausted)
        }
    }
}

/// Paused, it stays armed and does not accept.
#[derive(Default)]
struct PausedButPolled;

impl LoopHooks for PausedButPolled {
    fn paused(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Backs off when descriptors run out for the first time only.
#[derive(Default)]
struct BacksOffOnce {
    used: bool,
}

impl LoopHooks for BacksOffOnce {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        if std::mem::replace(&mut self.used, true) { Next::Leave } else { Reference.exhausted(pass) }
    }
}

/// Accepts without a budget.
#[derive(Default)]
struct Unbounded;

impl LoopHooks for Unbounded {
    fn charge(&mut self, _: &mut Pass<'_>, _: Option<Errno>) {}
}

/// Does not charge the budget for refused connections.
#[derive(Default)]
struct SheddingIsFree;

impl LoopHooks for SheddingIsFree {
    fn shed(&mut self, pass: &mut Pass<'_>, stream: Stream) -> Next {
        pass.left += 1;
        pass.refuse(stream);
        Next::Again
    }
}
