//! Random sequences of all operations, valid and invalid, for each family and for pairs of families.

use epoll_acceptor::sim::kernel::{Family, Mask, Shut};

use crate::parity::op::{EPOLL, EVENTFD, LISTENER, OTHER_EPOLL, Op, Setup, TIMERFD};
use crate::parity::play::{Coverage, Record, compare};
use crate::parity::real::{Fixture, is_supported};
use crate::{bound, report};

const FAMILIES: [[Family; 2]; 6] = [
    [Family::Tcp4, Family::Tcp4],
    [Family::Tcp6, Family::Tcp6],
    [Family::Unix, Family::Unix],
    [Family::Mptcp, Family::Mptcp],
    [Family::Tcp4, Family::Unix],
    [Family::Unix, Family::Mptcp],
];

#[test]
fn random_sequences_agree() {
    let operations = bound(60_000, 300_000, 1_000_000);
    let mut coverage = Coverage::default();
    compare_random(operations, seed(), &mut coverage, |_| {});
    report(&format!(
        "parity: {} sequences, {} operations: random, seed {}, 21 operations, {} families and mixtures, \
         0 mismatches ({} not repeated)",
        coverage.sequences,
        coverage.operations,
        seed(),
        coverage.families,
        coverage.once
    ));
}

/// Compares random sequences up to a number of operations, and passes each record to `keep`.
pub(crate) fn compare_random(
    operations: u64,
    seed: u64,
    coverage: &mut Coverage,
    mut keep: impl FnMut(Record),
) {
    let fixture = Fixture::new();
    let mut random = Random(seed);
    let here = |families: &[Family; 2]| families.iter().all(|family| is_supported(*family));
    let setups: Vec<_> = FAMILIES.into_iter().filter(here).collect();
    coverage.families = setups.len() as u64;
    while coverage.operations < operations {
        for families in setups.iter().copied() {
            let mptcp_clients = families.contains(&Family::Mptcp) && random.below(2) == 0;
            let setup = Setup { mptcp_clients, ..Setup::new(families, random.one_of(&[0, 1, 2, 2, 3])) };
            let ops = sequence(&mut random, setup);
            let outcomes = compare(&fixture, setup, &ops, coverage);
            keep(Record { setup, ops, outcomes });
        }
    }
}

fn seed() -> u64 {
    std::env::var("EPOLL_ACCEPTOR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A portable random number generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Masks of registrations; some of the last ones are invalid.
const MASKS: &[Mask] = &[
    Mask::IN,
    Mask::IN.union(Mask::ET),
    Mask::IN.union(Mask::ONESHOT),
    Mask::IN.union(Mask::ET).union(Mask::ONESHOT),
    Mask::IN.union(Mask::RDHUP),
    Mask::IN.union(Mask::OUT).union(Mask::ET),
    Mask::IN.union(Mask::ET).union(Mask::RDHUP),
    Mask::empty(),
    Mask::ET,
    Mask::OUT,
    Mask::RDNORM,
    Mask::RDNORM.union(Mask::ET),
    Mask::RDBAND.union(Mask::ET),
    Mask::IN.union(Mask::EXCLUSIVE),
    Mask::IN.union(Mask::ET).union(Mask::EXCLUSIVE),
    Mask::EXCLUSIVE,
    Mask::IN.union(Mask::RDHUP).union(Mask::EXCLUSIVE),
    Mask::IN.union(Mask::ONESHOT).union(Mask::EXCLUSIVE),
];

/// An undefined bit, which the kernel accepts without `EXCLUSIVE`.
const UNKNOWN_BIT: Mask = Mask::IN.union(Mask::from_bits_retain(1 << 20));

fn sequence(random: &mut Random, setup: Setup) -> Vec<Op> {
    let mut ops = vec![
        Op::Add { epoll: EPOLL, fd: LISTENER, mask: random.one_of(MASKS) },
        Op::Add { epoll: random.one_of(&[EPOLL, OTHER_EPOLL]), fd: 1, mask: random.one_of(MASKS) },
    ];
    let length = 4 + random.below(40);
    while ops.len() < length {
        let next = if random.below(25) == 0 { rare_sequence(random) } else { vec![op(random)] };
        ops.extend(next.into_iter().filter(|op| can_be_compared(setup, *op)));
    }
    ops.extend([Op::Wait { epoll: EPOLL, max: 16 }, Op::Wait { epoll: OTHER_EPOLL, max: 16 }]);
    ops
}

/// Returns whether both systems give the same result for this operation.
///
/// MPTCP reports the end of a connection later, from a work queue. With MPTCP clients, sequences do not observe
/// accepted connections and do not reuse descriptor numbers for them.
fn can_be_compared(setup: Setup, op: Op) -> bool {
    let observes_connection = match op {
        Op::Send { .. } | Op::Quit { .. } | Op::Reset { .. } | Op::Read { .. } => true,
        Op::Close { .. } | Op::Dup2 { .. } => true,
        Op::Add { fd, .. } | Op::Modify { fd, .. } | Op::Poll { fd } => fd > TIMERFD,
        _ => false,
    };
    !(setup.mptcp_clients && observes_connection)
}

/// Returns a sequence that independent random operations rarely form.
fn rare_sequence(random: &mut Random) -> Vec<Op> {
    let fd = LISTENER;
    let (send, quit, reset, read) =
        (Op::Send { peer: 0 }, Op::Quit { peer: 0 }, Op::Reset { peer: 0 }, Op::Read { peer: 0 });
    let accepted = random.one_of(&[6, 6, 7]);
    let how = random.one_of(&[Shut::RD, Shut::WR, Shut::all()]);
    let drain = [Op::Accept { fd }; 3];
    match random.below(5) {
        // A shutdown of a socket that does not listen, which connections inherit.
        0 => vec![
            Op::Shutdown { fd, how: Shut::RD },
            Op::Shutdown { fd, how },
            Op::Listen { fd, backlog: 2 },
            Op::Connect { listener: 0 },
            Op::Accept { fd },
            Op::Poll { fd: accepted },
        ],
        // Data, FIN and reset before the accept.
        1 => [vec![Op::Connect { listener: 0 }, send, quit, reset], drain.to_vec(), vec![read, read, read]]
            .concat(),
        2 => {
            [vec![Op::Connect { listener: 0 }, send, reset], drain.to_vec(), vec![read, read, read]].concat()
        }
        // Wakeup order.
        3 => vec![
            Op::Delete { epoll: EPOLL, fd },
            Op::Delete { epoll: OTHER_EPOLL, fd },
            Op::Add { epoll: EPOLL, fd, mask: random.one_of(&[Mask::OUT, Mask::IN]) },
            Op::Add { epoll: OTHER_EPOLL, fd, mask: random.one_of(&[Mask::RDBAND, Mask::IN]) | Mask::ET },
            Op::Add { epoll: OTHER_EPOLL, fd: EPOLL, mask: Mask::IN },
            Op::Shutdown { fd, how },
            Op::Wait { epoll: OTHER_EPOLL, max: 8 },
        ],
        // Nested epolls.
        _ => vec![
            Op::Add { epoll: OTHER_EPOLL, fd: EPOLL, mask: random.one_of(&[Mask::IN, Mask::IN | Mask::ET]) },
            Op::Connect { listener: 0 },
            Op::Wait { epoll: random.one_of(&[EPOLL, OTHER_EPOLL]), max: 8 },
            Op::Connect { listener: 0 },
            Op::Wait { epoll: OTHER_EPOLL, max: 8 },
        ],
    }
}

fn op(random: &mut Random) -> Op {
    let fd = random.one_of(&[
        LISTENER,
        LISTENER,
        LISTENER,
        1,
        1,
        EPOLL,
        OTHER_EPOLL,
        EVENTFD,
        TIMERFD,
        6,
        6,
        7,
        7,
        8,
        9,
    ]);
    let listener = random.one_of(&[0, 0, 0, 0, 1, 1, 6, 7, 8]);
    let epoll = random.one_of(&[EPOLL, EPOLL, EPOLL, EPOLL, OTHER_EPOLL, OTHER_EPOLL, OTHER_EPOLL, 6, 7, 0]);
    let peer = random.one_of(&[0, 0, 0, 1, 1, 2, 3]);
    let mask = if random.below(40) == 0 { UNKNOWN_BIT } else { random.one_of(MASKS) };
    match random.below(100) {
        0..16 => Op::Connect { listener: random.one_of(&[0, 0, 1]) },
        16..19 => Op::Send { peer },
        19..22 => Op::Quit { peer },
        22..25 => Op::Reset { peer },
        25..29 => Op::Read { peer },
        29..31 => Op::Drop { peer },
        31..41 => Op::Accept { fd: listener },
        41..43 => Op::AcceptWithFullTable { fd: listener },
        43..56 => Op::Wait { epoll, max: random.one_of(&[1, 1, 2, 8, 8, 8]) },
        56..64 => Op::Add { epoll, fd, mask },
        64..71 => Op::Modify { epoll, fd, mask },
        71..74 => Op::Delete { epoll, fd },
        74..76 => Op::Listen { fd: listener, backlog: random.one_of(&[0, 1, 3, 5, -1]) },
        76..80 => {
            Op::Shutdown { fd: listener, how: random.one_of(&[Shut::RD, Shut::WR, Shut::WR, Shut::all()]) }
        }
        80..83 => Op::Dup { fd },
        83..85 => Op::Dup2 { fd, onto: random.one_of(&[0, 1, 6, 7]) },
        85..88 => Op::Close { fd },
        88..93 => Op::Poll { fd },
        93..95 => Op::Depth { fd: listener },
        95..98 => Op::WriteEventfd { fd: EVENTFD },
        _ => Op::ExpireTimer { fd: TIMERFD },
    }
}
