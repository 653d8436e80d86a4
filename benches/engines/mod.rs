//! The loops whose costs are compared: this crate's acceptors, and the same loops by hand over libc.
//!
//! Both wait, take what is queued, and close it; they make the same system calls in the same order, which
//! `tests/costs` holds them to. So what one costs more than the other is what the crate's code costs.
#![allow(dead_code, reason = "no one binary uses all of it")]
#![allow(unreachable_pub, reason = "several binaries share it")]

pub mod abba;
pub mod args;
pub mod by_hand;
pub mod net;
pub mod ours;

pub use by_hand::ByHand;
pub use ours::Ours;

/// How the listener is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Level,
    Edge,
}

impl Strategy {
    // A further strategy has its row here, an arm in `boxed`, and its columns in the tables of `tests/costs`.
    pub const ALL: [Self; 2] = [Self::Level, Self::Edge];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Edge => "edge",
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
    /// Waits and takes, until so many connections have been taken.
    fn take(&mut self, count: usize);

    /// Closes what was taken.
    fn close(&mut self);
}

/// The attempts of one pass, which is the crate's own default.
pub const BUDGET: usize = 64;

/// How many wake-ups with a lone connection there are for one that counts what waits.
pub const LONE_PERIOD: usize = 31;

/// Whoever it is, on this listener. `burst` is what the loop by hand is told and the acceptor finds out.
pub fn boxed(who: Who, strategy: Strategy, burst: usize, listener: std::net::TcpListener) -> Box<dyn Engine> {
    use epoll_acceptor::{EdgeTriggered, Gate, LevelTriggered};

    let gate = Gate::new(1_000_000);
    match (who, strategy) {
        (Who::ByHand, _) => Box::new(ByHand::new(listener, strategy, burst)),
        (Who::Free, Strategy::Level) => Box::new(Ours::new(LevelTriggered::on(listener), burst)),
        (Who::Free, Strategy::Edge) => Box::new(Ours::new(EdgeTriggered::on(listener), burst)),
        (Who::Gated, Strategy::Level) => Box::new(Ours::new(LevelTriggered::on(listener).gate(&gate), burst)),
        (Who::Gated, Strategy::Edge) => Box::new(Ours::new(EdgeTriggered::on(listener).gate(&gate), burst)),
    }
}
