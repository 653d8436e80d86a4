//! What an acceptor tells a subscriber of `tracing`: changes of its state, and refusals, at most once a second.
//!
//! The events come from inside the owner's pass, in whatever span that is in: with several acceptors, enter a span that
//! names the one.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::counters::Tally;
use super::state::State;

/// The target of every event.
const TARGET: &str = "epoll_acceptor";

/// Between two events about refusals.
const PAUSE: Duration = Duration::from_secs(1);

/// One state is in charge after another.
pub(super) fn changed(from: State, to: State, tally: &Tally) {
    let (attempts, delivered) = (tally.attempts.read(), tally.delivered.read());
    match (from, to) {
        (State::Paused, State::Listening) => info!(target: TARGET, attempts, delivered, "resumed"),
        (_, State::Listening) => debug!(target: TARGET, attempts, delivered, from = %from, "open again"),
        (_, State::Throttled) => debug!(target: TARGET, attempts, delivered, "throttled"),
        (_, State::Full) => debug!(target: TARGET, attempts, delivered, "full"),
        (_, State::Exhausted) => {
            warn!(target: TARGET, attempts, delivered, "exhausted: out of descriptors or memory, backing off");
        }
        (_, State::Paused) => info!(target: TARGET, attempts, delivered, "paused"),
        (_, State::Stopped) => info!(target: TARGET, attempts, delivered, "stopped"),
        (_, State::Closed) => {
            error!(target: TARGET, attempts, delivered, "dead: the listener accepts no more")
        }
    }
}

/// What was told of refusals.
#[derive(Debug, Default)]
pub(super) struct Told {
    refused: u64,
    at: Option<Duration>,
}

impl Told {
    /// One more was refused.
    pub(super) fn refused(&mut self, now: Duration, tally: &Tally) {
        if self.at.is_some_and(|at| now.saturating_sub(at) < PAUSE) {
            return;
        }
        let refused = tally.refused.read();
        let since = refused - self.refused;
        (self.refused, self.at) = (refused, Some(now));
        warn!(
            target: TARGET,
            refused,
            since,
            full = tally.refused_full.read(),
            peer = tally.refused_peer.read(),
            rate = tally.refused_rate.read(),
            delay = tally.refused_delay.read(),
            credentials = tally.refused_credentials.read(),
            shortage = tally.refused_out_of_descriptors.read(),
            closing = tally.refused_closing.read(),
            policy = tally.refused_policy.read(),
            "refused"
        );
    }
}
