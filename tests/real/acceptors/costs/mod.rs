//! The exact number of system calls and allocations per connection.
//!
//! A test fails if a number rises or falls, so that the tables stay correct. `cargo bench -p benches --bench instructions` counts
//! instructions.

mod allocations;
mod calls;
#[cfg(feature = "tokio")]
mod lone_in_tokio;
mod trace;
