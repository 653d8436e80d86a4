//! The system calls: the wrappers on the running kernel, and calls that fail by plan.

#[allow(dead_code, reason = "shared with tests/real/acceptors")]
#[path = "../acceptors/support.rs"]
mod support;

mod faults;
#[cfg(feature = "signals")]
mod wrappers;
