//! Compares the model `sim::kernel` with the running kernel: the same calls must give the same results.
#![cfg(feature = "sim")]

mod exhaustive;
mod faults;
mod half_open;
mod model;
mod op;
mod own;
mod play;
mod random;
mod real;
mod sleepers;
mod sys;
mod workers;

use std::io::Write as _;

/// Returns whether the thorough run is requested.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Prints to stderr past the capture of the test harness.
fn report(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
