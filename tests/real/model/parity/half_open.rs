//! Half-open requests under `TCP_DEFER_ACCEPT`: the client is connected, and the server queues the connection at the
//! client's first byte, when the accept queue may be full.

use epoll_acceptor::sim::kernel::{Family, Mask};

use crate::parity::op::{EPOLL, LISTENER, Op, Setup};
use crate::parity::play::{Coverage, compare};
use crate::parity::random::Random;
use crate::parity::real::{Fixture, is_supported};
use crate::{bound, report};

#[test]
fn half_open_requests_agree() {
    let fixture = Fixture::new();
    let (mut coverage, mut random) = (Coverage::default(), Random(1));
    let families = [Family::Tcp4, Family::Tcp6];
    let families = families.into_iter().filter(|family| is_supported(*family)).collect::<Vec<_>>();
    let operations = bound(4_000, 20_000, 200_000);
    while coverage.operations < operations {
        for family in families.iter().copied() {
            let setup = Setup { deferred: true, ..Setup::new([family, family], 3) };
            compare(&fixture, setup, &sequence(&mut random), &mut coverage);
        }
    }
    report(&format!(
        "parity: {} sequences, {} operations: half-open requests, 0 mismatches ({} not repeated)",
        coverage.sequences, coverage.operations, coverage.once
    ));
}

/// Sends the SYNs before the backlog shrinks: a SYN beyond the backlog would be answered with a SYN cookie.
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
