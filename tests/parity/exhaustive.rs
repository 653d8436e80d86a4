//! Every sequence over a small alphabet, on every family and trigger.

use epoll_acceptor::sim::kernel::{Family, Mask, Shut};

use crate::op::{EPOLL, LISTENER, Op, Setup};
use crate::play::{Tally, compare};
use crate::real::{Bench, is_here};
use crate::{say, thorough};

/// The second descriptor of the listener: so there are two registrations, and waiting for one differs from
/// waiting for all.
const TWIN: u32 = 6;

#[test]
fn every_sequence_agrees() {
    let depth = if thorough() { 5 } else { 4 };
    let halves = [[Family::Tcp4, Family::Unix], [Family::Tcp6, Family::Mptcp]];
    let tallies = std::thread::scope(|scope| {
        let halves = halves.map(|families| scope.spawn(move || on_families(families, depth)));
        halves.map(|half| half.join().unwrap())
    });
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    say(&format!(
        "parity: {} sequences, {} operations: every sequence of {depth} over 12 operations, {} families, \
         3 triggers, 0 mismatches ({} not repeated)",
        sum(|tally| tally.sequences),
        sum(|tally| tally.operations),
        sum(|tally| tally.families),
        sum(|tally| tally.once)
    ));
}

fn on_families(families: [Family; 2], depth: usize) -> Tally {
    let bench = Bench::new();
    let mut tally = Tally::default();
    for family in families.into_iter().filter(|family| is_here(*family)) {
        tally.families += 1;
        for trigger in [Mask::IN, Mask::IN | Mask::ET, Mask::IN | Mask::ONESHOT] {
            let setup = Setup { mptcp_clients: true, ..Setup::new([family, family], 1) };
            every(&alphabet(trigger), depth, &mut opening(trigger), &mut |ops| {
                compare(&bench, setup, ops, &mut tally);
            });
        }
    }
    tally
}

fn opening(trigger: Mask) -> Vec<Op> {
    let add = |fd| Op::Add { epoll: EPOLL, fd, mask: trigger };
    vec![Op::Dup { fd: LISTENER }, add(LISTENER), add(TWIN)]
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

/// Calls with every sequence of so many letters, after what `ops` begins with.
fn every(alphabet: &[Vec<Op>], letters: usize, ops: &mut Vec<Op>, with: &mut dyn FnMut(&[Op])) {
    if letters == 0 {
        // What is left to be seen, whatever happened.
        let length = ops.len();
        ops.extend([
            Op::Wait { epoll: EPOLL, max: 8 },
            Op::Poll { fd: LISTENER },
            Op::Depth { fd: LISTENER },
        ]);
        with(ops);
        return ops.truncate(length);
    }
    for letter in alphabet {
        let length = ops.len();
        ops.extend(letter);
        every(alphabet, letters - 1, ops, with);
        ops.truncate(length);
    }
}
