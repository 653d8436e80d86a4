//! Known bugs: accept-loop faults of real servers and libraries, each refuted or explained.
//!
//! A fault is made executable as a mutant: a loop, a gate or a wrapper with that one fault. It must break the promise
//! that its row names, by the shortest script there is; and the references without the fault must pass the same scripts,
//! or the refutation means nothing.
#![cfg_attr(not(feature = "sim"), allow(unused))]

#[cfg(feature = "sim")]
mod calls;
#[cfg(feature = "sim")]
mod exclusive_exit;
#[cfg(feature = "sim")]
mod hand_loop;
#[cfg(feature = "sim")]
mod loop_hooks;
#[cfg(feature = "sim")]
mod test_gate;
#[cfg(feature = "sim")]
mod search;
#[cfg(feature = "sim")]
mod loops;
#[cfg(feature = "sim")]
mod faulty_gates;
#[cfg(feature = "sim")]
mod gates;
#[cfg(feature = "sim")]
mod wrappers;
#[cfg(feature = "sim")]
mod rows;
#[cfg(feature = "sim")]
mod table;
#[cfg(feature = "sim")]
mod refute;

use std::io::Write as _;

/// Prints past the test harness, which captures the output of tests that succeed.
fn eprint(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(not(feature = "sim"))]
#[test]
#[ignore = "the simulated kernel is a feature: cargo test --all-features"]
fn the_known_bugs_break_their_promises() {}
