//! Events for `tracing`: changes of an acceptor's state, and refusals (at most one event a second).
//!
//! They are emitted inside the owner's pass, in the current span: with several acceptors, enter a span that names the
//! acceptor.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::counters::AtomicCounters;
use super::state::State;

const TARGET: &str = "epoll_acceptor";

/// The minimum time between two events about refusals.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn changed(from: State, to: State, counters: &AtomicCounters) {
    let (attempts, delivered) = (counters.attempts.read(), counters.delivered.read());
    match (from, to) {
        (State::Paused, State::Listening) => info!(target: TARGET, attempts, delivered, "resumed"),
        (_, State::Listening) => debug!(target: TARGET, attempts, delivered, from = %from, "listening again"),
        (_, State::Throttled) => debug!(target: TARGET, attempts, delivered, "throttled"),
        (_, State::Full) => debug!(target: TARGET, attempts, delivered, "full"),
        (_, State::Exhausted) => {
            warn!(target: TARGET, attempts, delivered, "exhausted: out of descriptors or memory, backing off");
        }
        (_, State::Paused) => info!(target: TARGET, attempts, delivered, "paused"),
        (_, State::Stopped) => info!(target: TARGET, attempts, delivered, "stopped"),
        (_, State::Closed) => {
            error!(target: TARGET, attempts, delivered, "closed: the listener does not listen any more");
        }
    }
}

/// The refusals that were reported.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    refused: u64,
    at: Option<Duration>,
}

impl RefusalLog {
    /// Reports refusals, if the last report is old enough.
    pub(super) fn refused(&mut self, now: Duration, counters: &AtomicCounters) {
        if self.at.is_some_and(|at| now.saturating_sub(at) < PAUSE) {
            return;
        }
        let refused = counters.refused.read();
        let since = refused - self.refused;
        (self.refused, self.at) = (refused, Some(now));
        warn!(
            target: TARGET,
            refused,
            since,
            full = counters.refused_full.read(),
            peer = counters.refused_peer.read(),
            rate = counters.refused_rate.read(),
            delay = counters.refused_delay.read(),
            credentials = counters.refused_credentials.read(),
            network = counters.refused_network.read(),
            out_of_descriptors = counters.refused_out_of_descriptors.read(),
            shutdown = counters.refused_shutdown.read(),
            filter = counters.refused_filter.read(),
            "refused"
        );
    }
}
