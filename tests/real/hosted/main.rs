//! Acceptors in a tokio runtime, on the real kernel.
//!
//! A test that asserts that no event comes first does everything that could cause one; it does not wait for time to pass.
#![cfg(feature = "tokio")]

mod support;

mod blocking;
mod dropped;
mod edges;
mod end_on;
mod ends;
mod gate;
mod serving;
mod shutdown;
