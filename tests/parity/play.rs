//! One sequence on both sides, and what to do when they differ.

use epoll_acceptor::sim::kernel::{Linux, Rules};

use crate::model::Model;
use crate::op::{Op, Outcome, Setup, Story, World};
use crate::real::{Bench, Real};
use crate::say;

/// What was covered.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) sequences: u64,
    pub(crate) operations: u64,
    /// Families, and mixtures of two.
    pub(crate) families: u64,
    /// Sequences that differed once and agreed when played again: a reset or a retransmission came late.
    pub(crate) once: u64,
}

/// A sequence and what the kernel answered.
pub(crate) struct Record {
    pub(crate) setup: Setup,
    pub(crate) ops: Vec<Op>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Plays on the kernel.
pub(crate) fn on_kernel(bench: &Bench, setup: Setup, ops: &[Op]) -> Vec<Outcome> {
    let mut real = Real::new(bench, setup);
    (0..).zip(ops).map(|(step, op)| real.apply(step, *op)).collect()
}

/// Plays on the model, as far as it is certain.
pub(crate) fn on_model<R: Rules>(rules: R, setup: Setup, ops: &[Op]) -> Vec<Outcome> {
    let mut model = Model::new(rules, setup);
    let mut outcomes = Vec::with_capacity(ops.len());
    for (step, op) in (0..).zip(ops) {
        if !model.is_certain(*op) {
            break;
        }
        outcomes.push(model.apply(step, *op));
    }
    outcomes
}

/// Plays on both, and panics with the shortest story found if they keep differing.
pub(crate) fn compare(bench: &Bench, setup: Setup, ops: &[Op], tally: &mut Tally) -> Vec<Outcome> {
    tally.sequences += 1;
    let (kernel, model) = (on_kernel(bench, setup, ops), on_model(Linux, setup, ops));
    tally.operations += model.len() as u64;
    if kernel.starts_with(&model) {
        return kernel;
    }
    if !differs(bench, setup, ops) {
        tally.once += 1;
        say(&format!(
            "parity: differed once and not again:\n{}",
            Story { setup, ops, kernel: &kernel, model: &model }
        ));
        return model;
    }
    let ops = shrink(bench, setup, ops.to_vec());
    let (kernel, model) = (on_kernel(bench, setup, &ops), on_model(Linux, setup, &ops));
    panic!(
        "the model differs from the kernel:\n{}",
        Story { setup, ops: &ops, kernel: &kernel, model: &model }
    );
}

/// Whether the sides differ every time.
fn differs(bench: &Bench, setup: Setup, ops: &[Op]) -> bool {
    let model = on_model(Linux, setup, ops);
    (0..3).all(|_| !on_kernel(bench, setup, ops).starts_with(&model))
}

/// Leaves out calls as long as the rest still differs.
fn shrink(bench: &Bench, setup: Setup, mut ops: Vec<Op>) -> Vec<Op> {
    let mut at = 0;
    while at < ops.len() {
        let mut fewer = ops.clone();
        fewer.remove(at);
        if differs(bench, setup, &fewer) {
            ops = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    ops
}
