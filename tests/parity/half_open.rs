//! Half-open requests: clients that believe themselves connected while the server waits for their first byte,
//! and find the queue full when they send it.

use epoll_acceptor::sim::kernel::{Family, Mask};

use crate::op::{EPOLL, LISTENER, Op, Setup};
use crate::play::{Tally, compare};
use crate::random::Random;
use crate::real::{Bench, is_here};
use crate::{say, thorough};

#[test]
fn half_open_requests_agree() {
    let bench = Bench::new();
    let (mut tally, mut random) = (Tally::default(), Random(1));
    let families = [Family::Tcp4, Family::Tcp6];
    let families = families.into_iter().filter(|family| is_here(*family)).collect::<Vec<_>>();
    let operations = if thorough() { 200_000 } else { 20_000 };
    while tally.operations < operations {
        for family in families.iter().copied() {
            let setup = Setup { deferred: true, ..Setup::new([family, family], 3) };
            compare(&bench, setup, &sequence(&mut random), &mut tally);
        }
    }
    say(&format!(
        "parity: {} sequences, {} operations: half-open requests, 0 mismatches ({} not repeated)",
        tally.sequences, tally.operations, tally.once
    ));
}

/// Requests come before the backlog shrinks: more requests than it holds would be answered by cookies.
fn sequence(random: &mut Random) -> Vec<Op> {
    let mask = random.one_of(&[Mask::IN, Mask::IN | Mask::ET]);
    let fd = LISTENER;
    let mut ops = vec![Op::Add { epoll: EPOLL, fd, mask }];
    ops.extend(vec![Op::Connect { listener: 0 }; 1 + random.below(4)]);
    for _ in 0..20 {
        let peer = random.below(4);
        ops.push(match random.below(10) {
            0..3 => Op::Send { peer },
            3 => Op::Quit { peer },
            4 => Op::Reset { peer },
            5..7 => Op::Accept { fd },
            7 => Op::Listen { fd, backlog: random.one_of(&[0, 0, 1, 3]) },
            8 => Op::Wait { epoll: EPOLL, max: 1 },
            _ => Op::Depth { fd },
        });
    }
    ops
}
