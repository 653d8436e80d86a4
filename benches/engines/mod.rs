//! What the benches share: the loops whose costs are compared (this crate's acceptors, and hand-written loops over libc),
//! their clients, and how costs become ratios.
//!
//! Each loop waits, accepts what is queued, and closes it. Those of `boxed` make the same system calls in the same order,
//! which `tests/real/acceptors/costs` asserts. So the difference between two of them is the cost of this crate's code.
#![allow(dead_code, reason = "no binary uses all of it")]
#![allow(unreachable_pub, reason = "several binaries share it")]

pub mod abba;
pub mod by_hand;
pub mod calls;
pub mod machine;
pub mod net;
pub mod ours;
#[path = "../../src/drain/predict.rs"]
mod predict;
pub mod stats;

use std::net::TcpListener;
use std::os::fd::BorrowedFd;

use epoll_acceptor::{Gate, Trigger};

pub use ours::Ours;

/// A further trigger needs columns in the tables of `tests/real/acceptors/costs`.
pub const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];

/// What accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A loop over libc, with the same system calls.
    ByHand,
    /// An acceptor without a gate.
    Ungated,
    /// An acceptor with a gate that is never full.
    Gated,
}

impl Variant {
    pub const ALL: [Self; 3] = [Self::ByHand, Self::Ungated, Self::Gated];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::Ungated => "free",
            Self::Gated => "gated",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }
}

/// An accept loop.
pub trait Engine {
    /// Waits and accepts until `count` connections have been accepted, and does everything else that precedes the next
    /// wait that would block.
    fn take(&mut self, count: usize);

    /// Returns the accepted connections that are not closed yet.
    fn taken(&self) -> Vec<BorrowedFd<'_>>;

    /// Closes the accepted connections.
    fn close(&mut self);
}

/// The attempts of one pass: the default of this crate.
pub const BUDGET: usize = 64;

/// With lone connections, one wake-up in so many reads the length of the queue.
pub const LONE_PERIOD: usize = 31;

/// Starts a loop on this listener. The hand-written one is given `burst`; an acceptor finds it out.
pub fn boxed(variant: Variant, trigger: Trigger, burst: usize, listener: TcpListener) -> Box<dyn Engine> {
    match variant {
        Variant::ByHand => Box::new(by_hand::known_burst(listener, trigger, burst)),
        Variant::Ungated => Box::new(Ours::new(trigger.on(listener), burst)),
        Variant::Gated => Box::new(Ours::new(trigger.on(listener).gate(&Gate::new(1_000_000)), burst)),
    }
}
