//! The rows of faulty gates: which promise each breaks, and in which setup.

use epoll_acceptor::sim::{Action, Setup};

use crate::faulty_gates::{
    CancelledTwice, CancelsSilently, CheckThenTake, ChecksBeforeItCounts, ClearsWhileOver, ClosedTwice,
    CountsElsewhere, FromTheFirst, LastWakerOnly, LatchNotRebuilt, NeverCounted, NinetyPercent, NoRollback,
    NoWorkerIdleYet, OneFailureForAll, OneTooMany, PublishedUncounted, RaisesSilently, RateSwallowsRelease,
    SkipsEveryOther, StartsAtOne, WakesNone, WakesOne, WrongThread,
};
use crate::search::{Mutant, level, limit, none, once, shed, two};

pub(crate) fn mutants() -> Vec<Mutant> {
    let eagain = level;
    // Of two waiters, the one that is woken has no use for the permit.
    let three = Setup { acceptors: 3, ..limit(1, queued(1)) };
    let no_use = vec![vec![Action::Free], vec![Action::Pause(1)]];
    vec![
        Mutant::of_gate::<RateSwallowsRelease>(&["S13"], "P1", limit(1, queued(3)), none()),
        Mutant::of_gate::<ClearsWhileOver>(&["S14"], "P1", limit(2, queued(3)), once(&[Action::Limit(1)])),
        Mutant::of_gate::<CountsElsewhere>(&["S17"], "P4", limit(2, queued(1)), none()),
        Mutant::of_gate::<NoWorkerIdleYet>(&["S18"], "P1", limit(1, queued(1)), none()),
        Mutant::of_gate::<RaisesSilently>(&["S19"], "P1", limit(0, queued(1)), none()),
        Mutant::of_gate::<WrongThread>(&["S20"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<ChecksBeforeItCounts>(&["S23"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<StartsAtOne>(&["S24"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<StartsAtOne>(&["M6"], "P1", limit(2, queued(3)), none()),
        Mutant::of_gate::<CancelsSilently>(
            &["S25"],
            "P11",
            limit(2, two(eagain(1))),
            once(&[Action::Turn(1)]),
        ),
        Mutant::of_gate::<WakesOne>(&["S29"], "P11", three.clone(), no_use.clone()),
        Mutant::of_gate::<NoRollback>(&["L2"], "P4", limit(1, queued(2)), none()),
        Mutant::of_gate::<ClosedTwice>(&["L4"], "P4", limit(2, queued(2)), none()),
        Mutant::of_gate::<NeverCounted>(&["L7"], "P4", shed(1, queued(2)), none()),
        Mutant::of_gate::<CancelledTwice>(&["L10"], "P4", limit(2, eagain(1)), none()),
        Mutant::of_gate::<CheckThenTake>(&["L11"], "P3", limit(1, two(queued(1))), once(&[Action::Turn(1)])),
        Mutant::of_gate::<PublishedUncounted>(&["M7"], "P4", limit(1, queued(1)), none()),
        Mutant::of_gate::<OneTooMany>(&["L12"], "P3", limit(1, queued(2)), none()),
        Mutant::of_gate::<LatchNotRebuilt>(&["F17"], "P3", limit(0, queued(2)), none()).explained(),
        Mutant::of_gate::<FromTheFirst>(&["M8"], "P11", limit(1, two(queued(3))), none()),
        Mutant::of_gate::<OneFailureForAll>(&["M10"], "P11", limit(3, two(eagain(1))), none()),
        Mutant::of_gate::<NinetyPercent>(&["M11"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<WakesNone>(&["M35"], "P1", limit(1, queued(2)), none()),
        Mutant::of_gate::<LastWakerOnly>(&["M49"], "P11", limit(1, two(queued(2))), none()),
        Mutant::of_gate::<SkipsEveryOther>(&["M50"], "P11", three, no_use),
    ]
}

fn queued(queued: u32) -> Setup {
    Setup { queued, ..Setup::plain() }
}
