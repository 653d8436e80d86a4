//! Acceptors in a tokio runtime, on the real kernel.
//!
//! A test that asserts that no event comes first does everything that could cause one; it does not wait for time to pass.

#[cfg(feature = "tokio")]
mod support;
#[cfg(feature = "tokio")]
mod blocking;
#[cfg(feature = "tokio")]
mod dropped;
#[cfg(feature = "tokio")]
mod edges;
#[cfg(feature = "tokio")]
mod end_on;
#[cfg(feature = "tokio")]
mod ends;
#[cfg(feature = "tokio")]
mod gate;
#[cfg(feature = "tokio")]
mod serving;
#[cfg(feature = "tokio")]
mod shutdown;

#[cfg(not(feature = "tokio"))]
#[test]
#[ignore = "needs tokio, which is a feature: cargo test --all-features"]
fn the_promises_hold_in_tokio() {}
