//! The acceptors on the real kernel: each test is a fact.
#![allow(
    clippy::forget_non_drop,
    reason = "that forgetting a pass is no more than dropping it is promised, not typed"
)]

mod support;
mod throttle;

mod chaos;
mod closing;
mod connection;
mod control;
mod credentials;
mod dead;
mod delay;
mod exclusive;
mod exhausted;
mod foreign;
mod fork;
mod gate;
mod handover;
mod input;
mod leaving;
mod peers;
mod policy;
mod shed;
mod shortage;
mod steady;
