//! Runs one sequence on both systems, and shrinks it if they differ.

use epoll_acceptor::sim::kernel::Rules;

use crate::parity::model::Model;
use crate::parity::op::{Op, Outcome, Setup, System, Trace};
use crate::parity::real::{Fixture, Real};
use crate::parity::running::Running;
use crate::report;

/// What the comparisons covered.
#[derive(Default)]
pub(crate) struct Coverage {
    pub(crate) sequences: u64,
    pub(crate) operations: u64,
    /// Families and pairs of families.
    pub(crate) families: u64,
    /// Sequences that differed once and agreed when repeated: a reset or a retransmission was late.
    pub(crate) once: u64,
}

/// A sequence and the results of the kernel.
pub(crate) struct Record {
    pub(crate) setup: Setup,
    pub(crate) ops: Vec<Op>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Runs a sequence on the kernel.
pub(crate) fn on_kernel(fixture: &Fixture, setup: Setup, ops: &[Op]) -> Vec<Outcome> {
    let mut real = Real::new(fixture, setup);
    (0..).zip(ops).map(|(step, op)| real.apply(step, *op)).collect()
}

/// Runs a sequence on the model, up to the first call that it does not predict.
pub(crate) fn on_model<R: Rules>(rules: R, setup: Setup, ops: &[Op]) -> Vec<Outcome> {
    let mut model = Model::new(rules, setup);
    let mut outcomes = Vec::with_capacity(ops.len());
    for (step, op) in (0..).zip(ops) {
        if !model.is_deterministic(*op) {
            break;
        }
        outcomes.push(model.apply(step, *op));
    }
    outcomes
}

/// Runs a sequence on both systems and returns the results of the kernel.
///
/// # Panics
///
/// If the results differ repeatedly, with the shrunk sequence.
pub(crate) fn compare(fixture: &Fixture, setup: Setup, ops: &[Op], coverage: &mut Coverage) -> Vec<Outcome> {
    coverage.sequences += 1;
    let (kernel, model) = (on_kernel(fixture, setup, ops), on_model(Running, setup, ops));
    coverage.operations += model.len() as u64;
    if kernel.starts_with(&model) {
        return kernel;
    }
    if !differs(fixture, setup, ops) {
        coverage.once += 1;
        report(&format!(
            "parity: differed once, agreed when repeated:\n{}",
            Trace { setup, ops, kernel: &kernel, model: &model }
        ));
        return model;
    }
    let ops = shrink(fixture, setup, ops.to_vec());
    let (kernel, model) = (on_kernel(fixture, setup, &ops), on_model(Running, setup, &ops));
    panic!(
        "the model differs from the kernel:\n{}",
        Trace { setup, ops: &ops, kernel: &kernel, model: &model }
    );
}

/// Returns whether the systems differ in each of three runs.
fn differs(fixture: &Fixture, setup: Setup, ops: &[Op]) -> bool {
    let model = on_model(Running, setup, ops);
    (0..3).all(|_| !on_kernel(fixture, setup, ops).starts_with(&model))
}

/// Removes calls while the rest still differs.
fn shrink(fixture: &Fixture, setup: Setup, mut ops: Vec<Op>) -> Vec<Op> {
    let mut at = 0;
    while at < ops.len() {
        let mut fewer = ops.clone();
        fewer.remove(at);
        if differs(fixture, setup, &fewer) {
            ops = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    ops
}
