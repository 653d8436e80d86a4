//! The configuration of an acceptor.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`"))]

use std::time::Duration;

use super::trigger::{EmptyCheck, Trigger};
use crate::admission::refusal::Refusal;

/// The configuration of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The trigger of the registration.
    pub trigger: Trigger,
    /// Attempts per pass. Invariant: not 0.
    pub budget: u32,
    /// The check for the end of the queue; `None` takes the cheapest that the listener supports.
    pub empty_check: Option<EmptyCheck>,
    /// The maximum refusals per second, and their burst.
    pub refusals: Option<(u32, u32)>,
    /// The refusal of clients when the process is out of descriptors; `None` leaves them in the queue.
    pub when_exhausted: Option<Refusal>,
    /// Whether connections come with their peer's address.
    pub with_peer: bool,
    /// The time for which a graceful shutdown watches an empty queue for handshakes under way.
    pub handshake_grace: Duration,
}

impl Config {
    /// The defaults, with a budget.
    #[must_use]
    pub const fn new(trigger: Trigger, budget: u32) -> Self {
        Self {
            trigger,
            budget,
            empty_check: None,
            refusals: None,
            when_exhausted: None,
            with_peer: false,
            handshake_grace: Duration::from_millis(250),
        }
    }
}
