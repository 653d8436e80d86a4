//! The setups: what is built, in all combinations or in pairs.

use std::sync::LazyLock;

use epoll_acceptor::Trigger;
use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::sim::{GateMode, Leave, Policy, Setup};

/// All of one kind, or the second of another.
const TRIGGERS: [(Trigger, Option<Trigger>); 5] = [
    (Trigger::Level, None),
    (Trigger::Edge, None),
    (Trigger::Exclusive, None),
    (Trigger::Exclusive, Some(Trigger::Level)),
    (Trigger::Exclusive, Some(Trigger::Edge)),
];
/// With whether the kernel reports the queue's length: TCP does, Unix does not.
const EMPTY_CHECKS: [(Option<EmptyCheck>, bool); 5] = [
    (None, true),
    (None, false),
    (Some(EmptyCheck::UntilEagain), true),
    (Some(EmptyCheck::UntilEagain), false),
    (Some(EmptyCheck::Poll), true),
];
const GATES: [GateMode; 8] = [
    GateMode::Open,
    GateMode::Wait(0),
    GateMode::Wait(1),
    GateMode::Wait(2),
    GateMode::Wait(100),
    GateMode::Batch(2, 2),
    GateMode::Shed(1),
    GateMode::Shed(2),
];
/// How many acceptors, whether they share a listener, and whether each has a gate of its own.
const CROWDS: [(usize, bool, bool); 5] =
    [(1, false, false), (2, false, false), (2, true, false), (2, true, true), (3, true, false)];
const LEAVES: [Leave; 6] =
    [Leave::AtTheEnd, Leave::Break(1), Leave::Break(2), Leave::Forget(1), Leave::Panic(1), Leave::Skip];
const BUDGETS: [u32; 4] = [1, 2, 7, 64];
const QUEUED: [u32; 3] = [3, 1, 0];

/// How many choices each of the seven dimensions has.
const SIZES: [usize; 7] = [
    TRIGGERS.len(),
    EMPTY_CHECKS.len(),
    GATES.len(),
    CROWDS.len(),
    LEAVES.len(),
    BUDGETS.len(),
    QUEUED.len(),
];

/// The most choices of a dimension.
const MAX_SIZE: usize = 8;

/// The setup with these choices.
pub(crate) fn setup(choice: [usize; 7]) -> Setup {
    let [trigger, empty_check, gate, crowd, leave, budget, queued] = choice;
    let (empty_check, reports_length) = EMPTY_CHECKS[empty_check];
    let (acceptors, one_listener, own_gates) = CROWDS[crowd];
    let (trigger, second) = TRIGGERS[trigger];
    Setup {
        trigger,
        second,
        empty_check,
        reports_length,
        budget: BUDGETS[budget],
        gate: GATES[gate],
        own_gates,
        acceptors,
        one_listener,
        leave: LEAVES[leave],
        queued: QUEUED[queued],
        ..Setup::plain()
    }
}

/// What an acceptor may have besides its gate: a policy, a rate of refusals, a reserve descriptor.
const EXTRAS: [(Policy, bool, bool); 14] = [
    (Policy::Rate(1), false, false),
    (Policy::Choosy, false, false),
    (Policy::Nothing, false, true),
    (Policy::ShedRate(1), true, false),
    (Policy::Rate(3), false, true),
    (Policy::Nothing, true, false),
    (Policy::Choosy, true, true),
    (Policy::ShedRate(2), false, false),
    (Policy::Peers(1), false, false),
    (Policy::PeersThenChoosy(1), false, false),
    (Policy::Delay, false, false),
    (Policy::Allowed, false, false),
    (Policy::Peers(2), true, true),
    (Policy::Delay, true, true),
];

/// How many of these there are.
pub(crate) const EXTRAS_COUNT: usize = EXTRAS.len();

/// The setup with the n-th of them.
pub(crate) fn with_extra(setup: &Setup, n: usize) -> Setup {
    let (extra, refuses_slowly, reserve) = EXTRAS[n];
    let refusals = refuses_slowly.then_some((Policy::PER_SECOND, 2));
    Setup { policy: extra, refusals, reserve, ..setup.clone() }
}

/// The n-th of all setups.
pub(crate) fn nth(n: usize) -> Setup {
    setup(choice_of(n))
}

/// Whether a setup has an exclusive acceptor, or more than a pair behind one gate.
pub(crate) fn is_crowded(setup: &Setup) -> bool {
    setup.trigger == Trigger::Exclusive || setup.own_gates || setup.acceptors > 2
}

/// How many setups there are.
pub(crate) fn count() -> usize {
    SIZES.iter().product()
}

/// A set of setups in which every two choices of two dimensions meet.
pub(crate) fn in_pairs() -> Vec<Setup> {
    // Found once for all tests.
    static PAIRS: LazyLock<Vec<Setup>> = LazyLock::new(cover_pairs);
    PAIRS.clone()
}

/// Greedily: the setup that brings most new pairs is next.
fn cover_pairs() -> Vec<Setup> {
    let pairs_of =
        |choice: [usize; 7]| (0..7).flat_map(move |a| (a + 1..7).map(move |b| (a, choice[a], b, choice[b])));
    let mut met = [[[[false; MAX_SIZE]; 7]; MAX_SIZE]; 7];
    let mut chosen = Vec::new();
    loop {
        let new = |choice: &[usize; 7]| pairs_of(*choice).filter(|&(a, x, b, y)| !met[a][x][b][y]).count();
        let best = (0..count()).map(choice_of).max_by_key(new).expect("there are setups");
        if new(&best) == 0 {
            return chosen;
        }
        pairs_of(best).for_each(|(a, x, b, y)| met[a][x][b][y] = true);
        chosen.push(setup(best));
    }
}

fn choice_of(mut n: usize) -> [usize; 7] {
    SIZES.map(|size| {
        let choice = n % size;
        n /= size;
        choice
    })
}
