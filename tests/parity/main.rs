//! The model of `sim::kernel` against the kernel itself: the same calls, result for result.
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

/// Whether this is the long run.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Prints past the harness, which shows nothing of a test that passes.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
