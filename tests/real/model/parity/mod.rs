//! Compares the model `sim::kernel` with the running kernel: the same calls must give the same results.

mod exhaustive;
mod faults;
mod half_open;
mod model;
mod op;
mod own;
mod play;
mod random;
mod real;
mod running;
mod sleepers;
pub(crate) mod sys;
mod workers;
