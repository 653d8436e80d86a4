//! What is checked about refusals and rates: for which causes connections may be refused, and how fast.

use std::time::Duration;

use super::super::script::{GateMode, Policy, Setup};
use super::Checker;
use crate::drain::counters::Counters;

impl Checker {
    pub(crate) fn on_refusal(&mut self, acceptor: usize) {
        let account = &mut self.accounts[acceptor];
        account.refused += 1;
        account.rejected = false;
        if account.pass.exhausted == 0 {
            account.backoffs = 0;
        }
        let (refused, rate) = (account.refused, account.allowed_causes.rate);
        if let Some((per_second, burst)) = rate {
            let most = u64::from(burst) + self.so_far(per_second);
            if refused > most {
                self.violate(
                    "P2",
                    format!("acceptor {acceptor} refused {refused}, {most} were allowed so far"),
                );
            }
        }
    }

    /// How many tokens have accrued so far at this rate.
    fn so_far(&self, per_second: u32) -> u64 {
        let whole = self.now.as_nanos() * u128::from(per_second) / Duration::from_secs(1).as_nanos();
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// A filter asks an acceptor to retry later.
    pub(crate) fn on_retry_after(&mut self, acceptor: usize, wait: Duration) {
        self.accounts[acceptor].throttled = Some(wait);
    }

    pub(crate) fn on_token_taken(&mut self) {
        self.tokens += 1;
        let burst = self.accounts.first().map_or(0, |account| account.allowed_causes.burst);
        let most = u64::from(burst) + self.so_far(Policy::PER_SECOND);
        if self.tokens > most {
            let what = format!("{} were admitted at a rate that has allowed {most} so far", self.tokens);
            self.violate("P3", what);
        }
    }

    /// A token was not used.
    pub(crate) fn on_token_returned(&mut self) {
        match self.tokens.checked_sub(1) {
            Some(left) => self.tokens = left,
            None => self.violate("P4", "a token was returned that was not taken"),
        }
    }

    /// An acceptor released its reserve descriptor: another attempt may succeed.
    pub(crate) fn may_retry_once(&mut self, acceptor: usize) {
        self.accounts[acceptor].exhausted = false;
    }
}

/// The causes for which an acceptor may refuse.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AllowedCauses {
    full: bool,
    rated: bool,
    peer: bool,
    delay: bool,
    credentials: bool,
    filter: bool,
    out_of_descriptors: bool,
    /// The maximum refusals per second, and their burst.
    pub(super) rate: Option<(u32, u32)>,
    /// The burst of the rate at which connections are admitted.
    pub(super) burst: u32,
}

impl AllowedCauses {
    pub(super) fn of(setup: &Setup) -> Self {
        Self {
            full: matches!(setup.gate, GateMode::Shed(_)),
            rated: matches!(setup.policy, Policy::ShedRate(_)),
            peer: matches!(setup.policy, Policy::Peers(_) | Policy::PeersThenChoosy(_)),
            delay: setup.policy == Policy::Delay,
            credentials: setup.policy == Policy::Allowed,
            // A panic of a shedding gate after the accept counts as a refusal by the filter.
            filter: matches!(setup.policy, Policy::Choosy | Policy::PeersThenChoosy(_))
                || matches!(setup.gate, GateMode::Shed(_)),
            out_of_descriptors: setup.reserve,
            rate: setup.refusals,
            burst: match setup.policy {
                Policy::Rate(burst) | Policy::ShedRate(burst) => burst,
                _ => 0,
            },
        }
    }

    pub(super) fn allow(self, counters: &Counters) -> bool {
        let allowed = [
            (self.full, counters.refused_full),
            (self.rated, counters.refused_rate),
            (self.peer, counters.refused_peer),
            (self.delay, counters.refused_delay),
            (self.credentials, counters.refused_credentials),
            (self.filter, counters.refused_filter),
            (self.out_of_descriptors, counters.refused_out_of_descriptors),
        ];
        let told: u64 = allowed.iter().map(|(_, count)| count).sum();
        told == counters.refused && allowed.iter().all(|(may, count)| *may || *count == 0)
    }
}
