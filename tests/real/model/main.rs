//! The simulated kernel against the running one: the same calls give the same results.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` widens every bound.
#![cfg_attr(not(feature = "sim"), allow(unused))]

#[cfg(feature = "sim")]
mod conformance;
#[cfg(feature = "sim")]
mod parity;

use std::io::Write as _;

/// Returns whether the wide bounds are set.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Prints to stderr past the capture of the test harness.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(not(feature = "sim"))]
#[test]
#[ignore = "the simulated kernel is a feature: cargo test --all-features"]
fn the_model_equals_the_kernel() {}
