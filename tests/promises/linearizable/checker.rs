//! The search for an order that explains a history (Wing and Gong, with Lowe's memory of what was tried).

use std::collections::HashSet;

use crate::linearizable::model::{Op, Sequential};

/// A call, and when it began and ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) op: Op,
}

/// Returns whether an order of the calls explains every result, in which no call comes before one that ended before it
/// began.
pub(crate) fn is_linearizable(gate: &Sequential, calls: &[Call]) -> bool {
    assert!(calls.len() <= 128, "{} calls", calls.len());
    let all = u128::MAX.checked_shr(128 - u32::try_from(calls.len()).unwrap()).unwrap_or(0);
    let (mut tried, mut open) = (HashSet::new(), vec![(0_u128, gate.clone())]);
    while let Some((done, gate)) = open.pop() {
        if done == all {
            return true;
        }
        let left = || calls.iter().enumerate().filter(move |(at, _)| done & 1 << at == 0);
        let first_end = left().map(|(_, call)| call.end).min().unwrap_or(0);
        for (at, call) in left().filter(|(_, call)| call.begin < first_end) {
            let mut next = (done | 1 << at, gate.clone());
            if next.1.explains(call.op) && tried.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    false
}

fn in_turn(ops: &[Op]) -> Vec<Call> {
    (0..).zip(ops).map(|(at, op)| Call { begin: 2 * at, end: 2 * at + 1, op: *op }).collect()
}

const TRY: Op = Op::Try { granted: true };
const FULL: Op = Op::Try { granted: false };
const RELEASE: Op = Op::Release { handshaking: true };

const fn poll(id: u64, ready: bool) -> Op {
    Op::Poll { id, ready }
}

#[test]
fn histories_that_no_gate_has_are_rejected() {
    for (what, handshakes, ops) in [
        ("a permit above the limit", None, vec![TRY, TRY]),
        ("a refusal below it", None, vec![TRY, RELEASE, FULL]),
        ("a waiter overtaken", None, vec![TRY, poll(1, false), poll(2, false), RELEASE, poll(2, true)]),
        ("a waiter overtaken by a try", None, vec![TRY, poll(1, false), RELEASE, TRY]),
        ("a permit lost with a future", None, vec![TRY, poll(1, false), RELEASE, Op::Cancel { id: 1 }, FULL]),
        ("a limit that is ignored", None, vec![Op::SetLimit(2), TRY, FULL]),
        ("a handshake above its limit", Some(1), vec![Op::SetLimit(2), TRY, TRY]),
        (
            "a handshake that never ends",
            Some(1),
            vec![Op::SetLimit(2), TRY, Op::HandshakeDone { first: true }, FULL],
        ),
    ] {
        assert!(!is_linearizable(&Sequential::new(1, handshakes), &in_turn(&ops)), "{what}");
    }
}

#[test]
fn overlapping_calls_may_take_effect_in_either_order() {
    let sequence = [TRY, poll(1, false), RELEASE, poll(1, true), FULL, RELEASE];
    assert!(is_linearizable(&Sequential::new(1, None), &in_turn(&sequence)));
    // As a sequence no gate explains this; with the release and the try at the same time the one may come first.
    let mut calls = in_turn(&[TRY, TRY, RELEASE]);
    assert!(!is_linearizable(&Sequential::new(1, None), &calls));
    calls[1].end = calls[2].end + 1;
    assert!(is_linearizable(&Sequential::new(1, None), &calls));
}
