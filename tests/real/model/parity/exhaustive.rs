//! Every sequence of a few operations, for every family and trigger.

use epoll_acceptor::sim::kernel::{Family, Mask, Shut};

use crate::parity::op::{EPOLL, LISTENER, Op, Setup};
use crate::parity::play::{Coverage, compare};
use crate::parity::real::{Fixture, is_supported};
use crate::{bound, report};

/// A second descriptor of the listener, for a second registration: `max` 1 and `max` 8 then differ.
const DUPLICATE: u32 = 6;

#[test]
fn every_sequence_agrees() {
    let depth = bound(3, 4, 5);
    let halves = [[Family::Tcp4, Family::Unix], [Family::Tcp6, Family::Mptcp]];
    let coverages = std::thread::scope(|scope| {
        let halves = halves.map(|families| scope.spawn(move || compare_families(families, depth)));
        halves.map(|half| half.join().unwrap())
    });
    let sum = |of: fn(&Coverage) -> u64| coverages.iter().map(of).sum::<u64>();
    report(&format!(
        "parity: {} sequences, {} operations: every sequence of {depth} over 12 operations, {} families, \
         3 triggers, 0 mismatches ({} not repeated)",
        sum(|coverage| coverage.sequences),
        sum(|coverage| coverage.operations),
        sum(|coverage| coverage.families),
        sum(|coverage| coverage.once)
    ));
}

fn compare_families(families: [Family; 2], depth: usize) -> Coverage {
    let fixture = Fixture::new();
    let mut coverage = Coverage::default();
    for family in families.into_iter().filter(|family| is_supported(*family)) {
        coverage.families += 1;
        for trigger in [Mask::IN, Mask::IN | Mask::ET, Mask::IN | Mask::ONESHOT] {
            let setup = Setup { mptcp_clients: true, ..Setup::new([family, family], 1) };
            each_sequence(&alphabet(trigger), depth, &mut prefix(trigger), &mut |ops| {
                compare(&fixture, setup, ops, &mut coverage);
            });
        }
    }
    coverage
}

fn prefix(trigger: Mask) -> Vec<Op> {
    let add = |fd| Op::Add { epoll: EPOLL, fd, mask: trigger };
    vec![Op::Dup { fd: LISTENER }, add(LISTENER), add(DUPLICATE)]
}

fn alphabet(trigger: Mask) -> [Vec<Op>; 12] {
    let modify = |mask| Op::Modify { epoll: EPOLL, fd: LISTENER, mask };
    let shutdown = |how| Op::Shutdown { fd: LISTENER, how };
    [
        vec![Op::Connect { listener: 0 }],
        vec![Op::Quit { peer: 0 }],
        vec![Op::Reset { peer: 0 }],
        vec![Op::Accept { fd: LISTENER }],
        vec![Op::Wait { epoll: EPOLL, max: 1 }],
        vec![Op::Wait { epoll: EPOLL, max: 8 }],
        vec![modify(trigger)],
        vec![modify(Mask::empty())],
        vec![
            Op::Delete { epoll: EPOLL, fd: LISTENER },
            Op::Add { epoll: EPOLL, fd: LISTENER, mask: trigger },
        ],
        vec![shutdown(Shut::RD)],
        vec![shutdown(Shut::WR)],
        vec![Op::Listen { fd: LISTENER, backlog: 0 }],
    ]
}

/// Calls `visit` with `ops` extended by each sequence of `length` letters and a final observation.
fn each_sequence(alphabet: &[Vec<Op>], length: usize, ops: &mut Vec<Op>, visit: &mut dyn FnMut(&[Op])) {
    if length == 0 {
        let before = ops.len();
        ops.extend([
            Op::Wait { epoll: EPOLL, max: 8 },
            Op::Poll { fd: LISTENER },
            Op::Depth { fd: LISTENER },
        ]);
        visit(ops);
        return ops.truncate(before);
    }
    for letter in alphabet {
        let before = ops.len();
        ops.extend(letter);
        each_sequence(alphabet, length - 1, ops, visit);
        ops.truncate(before);
    }
}
