//! What the checker keeps of each acceptor and each gate.

use std::time::Duration;

use super::refusals::AllowedCauses;

/// What one acceptor did, as seen from its calls.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) attempts: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    pub(crate) empty: u64,
    pub(crate) waits_with_events: u64,
    pub(crate) in_pass: Option<u32>,
    pub(crate) budget: u32,
    pub(crate) gate: usize,
    pub(crate) accepts_until_eagain: bool,
    /// The causes for which it may refuse.
    pub(crate) allowed_causes: AllowedCauses,
    /// Its filter has rejected the connection that it accepted last.
    pub(crate) rejected: bool,
    /// Its filter has asked it to retry after this long.
    pub(crate) throttled: Option<Duration>,
    pub(crate) last_serial: u64,
    /// How often it has backed off since it last accepted a connection.
    pub(crate) backoffs: u32,
    /// Transient errors since it last accepted a connection or backed off.
    pub(crate) futile: u32,
    pub(crate) paused: bool,
    pub(crate) stopped: bool,
    /// Attempts made since it was told to pause or stop: one may have been under way.
    pub(crate) since_command: u32,
    pub(crate) closed_reports: u32,
    /// Its owner has dropped it.
    pub(crate) gone: bool,
    /// Removed from its epoll.
    pub(crate) removed: bool,
    /// It waits for a permit, and has not been woken since.
    pub(crate) enqueued: bool,
    /// Permits that were released while it waited.
    pub(crate) passed_over: u32,
    /// It was woken since its last pass began.
    pub(crate) woken: bool,
    /// It ran out of descriptors or memory with connections pending, and neither time nor a wakeup nor a client has
    /// changed that.
    pub(crate) exhausted: bool,
    /// The last two times that it ran out with connections pending, the latest first, with nothing since that excuses
    /// it.
    pub(crate) shortages: [Option<Duration>; 2],
    pub(crate) pass: PassStats,
    pub(crate) alarm: Option<Duration>,
}

/// The permits of one gate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GateModel {
    pub(crate) limit: u32,
    pub(crate) in_use: u32,
    /// Once full, it opens again when this many permits are free.
    pub(crate) low_water: u32,
    /// It was full, and since then neither were `low_water` permits free nor all released. A permit returned unused does
    /// not count as taken.
    pub(crate) was_full: bool,
}

impl GateModel {
    /// Whether a permit is available.
    pub(crate) fn is_available(self) -> bool {
        self.in_use < self.limit && (self.low_water <= 1 || !self.was_full)
    }
}

/// What happened in one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassStats {
    pub(crate) began: Duration,
    pub(crate) exhausted: u32,
    /// Aborted connections, interruptions.
    pub(crate) transient: u32,
    pub(crate) alarms: u32,
}

impl Expected {
    pub(crate) fn on_transient_error(&mut self) {
        self.pass.transient += 1;
        self.futile += 1;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed_reports > 0
    }

    /// Whether it never accepts again.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_closed() || self.stopped || self.gone
    }
}
