//! The simulated kernel against the running one: the same calls give the same results.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` widens every bound, `EPOLL_ACCEPTOR_QUICK=1` narrows them for an emulated processor.
#![cfg_attr(not(feature = "sim"), allow(unused))]

#[cfg(feature = "sim")]
mod conformance;
#[cfg(feature = "sim")]
mod parity;

use std::io::Write as _;

/// Returns the bound to use.
fn bound<T>(quick: T, usual: T, thorough: T) -> T {
    let is_set = |name| std::env::var_os(name).is_some();
    if is_set("EPOLL_ACCEPTOR_QUICK") {
        return quick;
    }
    if is_set("EPOLL_ACCEPTOR_THOROUGH") { thorough } else { usual }
}

/// Prints to stderr past the capture of the test harness.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(not(feature = "sim"))]
#[test]
#[ignore = "the simulated kernel is a feature: cargo test --all-features"]
fn the_model_equals_the_kernel() {}
