//! The ways in which an exclusive acceptor stops listening. The kernel has woken it alone for what is queued.

use crate::calls::Calls;
use crate::hand_loop::Reason;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExclusiveExit {
    /// Deregisters, and then wakes the other epolls: correct.
    Rewakes,
    RewakesFirst,
    Silent,
    SilentWhenFull,
    SilentWhenStopped,
    /// Modifies its registration, which fails, and ignores the error.
    Modifies,
    /// Wakes the other epolls, and stays registered.
    Stays,
}

impl ExclusiveExit {
    /// Stops listening by `leave`, for a reason (`None`: for good).
    pub(crate) fn carry_out(self, calls: &dyn Calls, reason: Option<Reason>, leave: impl FnOnce(&dyn Calls)) {
        if self == Self::RewakesFirst {
            calls.rewake_other_epolls();
        }
        if !matches!(self, Self::Modifies | Self::Stays) {
            leave(calls);
        }
        let rewakes = match self {
            Self::Rewakes | Self::Stays => true,
            Self::SilentWhenFull => reason != Some(Reason::Full),
            Self::SilentWhenStopped => reason.is_some(),
            Self::RewakesFirst | Self::Silent | Self::Modifies => false,
        };
        if rewakes {
            calls.rewake_other_epolls();
        }
    }
}
