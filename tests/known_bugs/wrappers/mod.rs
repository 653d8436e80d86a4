//! Wrappers of epoll with one fault each, and the property that each breaks.

pub(crate) mod batches;
mod controls;
pub(crate) mod gate;
pub(crate) mod handover;
pub(crate) mod latency;
pub(crate) mod readiness;
pub(crate) mod real;
pub(crate) mod rules;

use crate::search::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    let parts = [
        batches::mutants,
        gate::mutants,
        handover::mutants,
        latency::mutants,
        readiness::mutants,
        real::mutants,
        rules::mutants,
    ];
    parts.into_iter().flat_map(|mutants| mutants()).collect()
}
