//! The promises P1 to P14 of `docs/promises.md`, on the simulated kernel.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` widens every bound.
#![cfg_attr(not(feature = "sim"), allow(unused))]

#[cfg(feature = "sim")]
mod corpus;
mod linearizable;
#[cfg(feature = "sim")]
mod passes;
#[cfg(feature = "sim")]
mod properties;
#[cfg(feature = "sim")]
mod real_stage;

use std::io::Write;

/// Returns whether the wide bounds are set.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Prints what was covered, past the harness's capture.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(not(feature = "sim"))]
#[test]
#[ignore = "the simulated kernel is a feature: cargo test --all-features"]
fn the_promises_hold() {}
