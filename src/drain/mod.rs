//! Every decision of accepting: when to accept, when to stop, when to block, and what ends a block.

// MUST be pure: no descriptor, no clock, no system call. Of `libc` it may name the errno constants only. The world
// enters through `backend::Backend` alone. Imports from `admission` only.
#![forbid(unsafe_code)]

pub(crate) mod errno;
pub(crate) mod backend;
pub(crate) mod state;
mod state_times;
pub(crate) mod counters;
mod backoff;
pub(crate) mod trigger;
mod predict;
mod pass;
#[cfg(feature = "tracing")]
mod tracing;
pub(crate) mod control;
pub(crate) mod config;
pub(crate) mod core;
mod accept;
mod phase;
mod refuse;
pub(crate) mod shutdown;
pub(crate) mod acceptor;
pub(crate) mod poller;
