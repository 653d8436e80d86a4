//! What the benches have in common: the loops whose costs are compared (this crate's acceptors, and loops by hand over
//! libc), whoever connects to them, and how costs become ratios.
//!
//! All of them wait, take what is queued, and close it. Those of `boxed` make the same system calls in the same order,
//! which `tests/costs` holds them to. So what one costs more than the other is what the crate's code costs.
#![allow(dead_code, reason = "no one binary uses all of it")]
#![allow(unreachable_pub, reason = "several binaries share it")]

pub mod abba;
pub mod args;
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

use epoll_acceptor::{Builder, EdgeTriggered, Exclusive, Gate, LevelTriggered};

pub use ours::Ours;

/// How the listener is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Level,
    Edge,
    Exclusive,
}

impl Strategy {
    // A further strategy has its row here, an arm in `boxed`, and its columns in the tables of `tests/costs`.
    pub const ALL: [Self; 3] = [Self::Level, Self::Edge, Self::Exclusive];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Edge => "edge",
            Self::Exclusive => "exclusive",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }
}

/// Who accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A loop over libc, with the same system calls.
    ByHand,
    /// An acceptor without a limit.
    Free,
    /// An acceptor behind a gate that is never full.
    Gated,
}

impl Who {
    pub const ALL: [Self; 3] = [Self::ByHand, Self::Free, Self::Gated];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::Free => "free",
            Self::Gated => "gated",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|who| who.name() == name)
    }
}

/// An accept loop.
pub trait Engine {
    /// From asleep: waits and takes, until so many connections have been taken, and does everything else that comes
    /// before the next wait that would block.
    fn take(&mut self, count: usize);

    /// What was taken and is not closed yet.
    fn taken(&self) -> Vec<BorrowedFd<'_>>;

    /// Closes what was taken.
    fn close(&mut self);
}

/// The attempts of one pass, which is the crate's own default.
pub const BUDGET: usize = 64;

/// How many wake-ups with a lone connection there are for one that counts what waits.
pub const LONE_PERIOD: usize = 31;

/// Whoever it is, on this listener. `burst` is what the loop by hand is told and the acceptor finds out.
pub fn boxed(who: Who, strategy: Strategy, burst: usize, listener: TcpListener) -> Box<dyn Engine> {
    match (who, strategy) {
        (Who::ByHand, _) => Box::new(by_hand::told(listener, strategy, burst)),
        (_, Strategy::Level) => ours(who, LevelTriggered::on(listener), burst),
        (_, Strategy::Edge) => ours(who, EdgeTriggered::on(listener), burst),
        (_, Strategy::Exclusive) => ours(who, Exclusive::on(listener), burst),
    }
}

fn ours<S>(who: Who, builder: Builder<TcpListener, S>, burst: usize) -> Box<dyn Engine>
where
    S: epoll_acceptor::Strategy + 'static,
{
    match who {
        Who::Gated => Box::new(Ours::new(builder.gate(&Gate::new(1_000_000)), burst)),
        Who::Free | Who::ByHand => Box::new(Ours::new(builder, burst)),
    }
}
