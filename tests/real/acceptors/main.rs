//! The acceptors on real sockets, and what surrounds them: groups, handover, events, costs, usage.
#![allow(
    clippy::forget_non_drop,
    reason = "that forgetting a pass is no worse than dropping it is promised, not typed"
)]

#[path = "../../../benches/engines/mod.rs"]
mod engines;
mod support;

mod allowed_users;
mod chaos;
mod connection;
mod control;
mod costs;
#[cfg(feature = "tracing")]
mod events;
mod exclusive;
mod exhausted;
mod exits;
mod foreign;
mod fork;
mod gate;
#[cfg(feature = "group")]
mod group;
#[cfg(feature = "handover")]
mod handover;
mod input;
mod listener_closed;
mod new_owner;
mod panics;
mod peer_limit;
mod queue_delay;
mod rates;
mod reserve;
mod shed;
mod shutdown;
mod steady;
mod usage;
