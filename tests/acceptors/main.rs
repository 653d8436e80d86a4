//! The acceptors on the real kernel.
#![allow(
    clippy::forget_non_drop,
    reason = "that forgetting a pass is no worse than dropping it is promised, not typed"
)]

mod support;

mod allowed_users;
mod chaos;
mod connection;
mod control;
mod exclusive;
mod exhausted;
mod exits;
mod foreign;
mod fork;
mod gate;
mod handover;
mod input;
mod listener_closed;
mod panics;
mod peer_limit;
mod queue_delay;
mod rates;
mod reserve;
mod shed;
mod shutdown;
mod steady;
