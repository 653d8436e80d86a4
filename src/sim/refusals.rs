//! The part of the books that is about refusals and rates: who may be refused, for what, and how fast.

use std::time::Duration;

use super::ledger::Ledger;
use super::script::{GateMode, Policy, Setup};
use crate::drain::counters::Counters;

impl Ledger {
    pub(super) fn refuses(&mut self, acceptor: usize) {
        let account = &mut self.accounts[acceptor];
        account.refused += 1;
        account.denied = false;
        if account.pass.exhausted == 0 {
            account.backoffs = 0;
        }
        let (refused, rate) = (account.refused, account.refuses.rate);
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

    /// How many of so many a second the time has brought so far.
    fn so_far(&self, per_second: u32) -> u64 {
        let whole = self.now.as_nanos() * u128::from(per_second) / Duration::from_secs(1).as_nanos();
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// A policy does not let in what an acceptor has in hand.
    pub(super) fn denies(&mut self, acceptor: usize) {
        self.accounts[acceptor].denied = true;
    }

    /// A policy says that an acceptor has to wait.
    pub(super) fn throttles(&mut self, acceptor: usize, wait: Duration) {
        self.accounts[acceptor].throttled = Some(wait);
    }

    /// A token of the rate is used up.
    pub(super) fn takes_token(&mut self) {
        self.tokens += 1;
        let burst = self.accounts.first().map_or(0, |account| account.refuses.burst);
        let most = u64::from(burst) + self.so_far(Policy::PER_SECOND);
        if self.tokens > most {
            let what = format!("{} came in by a rate that has allowed {most} so far", self.tokens);
            self.violate("P3", what);
        }
    }

    /// A token was not used.
    pub(super) fn gives_token(&mut self) {
        match self.tokens.checked_sub(1) {
            Some(left) => self.tokens = left,
            None => self.violate("P4", "a token was given back that nobody had"),
        }
    }

    /// An acceptor gave its reserve descriptor up: a further attempt may succeed.
    pub(super) fn may_try_once_more(&mut self, acceptor: usize) {
        self.accounts[acceptor].exhausted = false;
    }
}

/// What an acceptor may refuse for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refuses {
    full: bool,
    rated: bool,
    peer: bool,
    delay: bool,
    credentials: bool,
    policy: bool,
    shortage: bool,
    /// How fast.
    pub(super) rate: Option<(u32, u32)>,
    /// How many come in at once by the rate that lets them in.
    pub(super) burst: u32,
}

impl Refuses {
    pub(super) fn of(case: &Setup) -> Self {
        Self {
            full: matches!(case.gate, GateMode::Shed(_)),
            rated: matches!(case.extra, Policy::ShedRate(_)),
            // A gate that panics when it is asked after the accept counts as well.
            peer: matches!(case.extra, Policy::Peers(_) | Policy::PeersThenChoosy(_)),
            delay: case.extra == Policy::Delay,
            credentials: case.extra == Policy::Allowed,
            policy: matches!(case.extra, Policy::Choosy | Policy::PeersThenChoosy(_))
                || matches!(case.gate, GateMode::Shed(_)),
            shortage: case.reserve,
            rate: case.refusals,
            burst: match case.extra {
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
            (self.policy, counters.refused_policy),
            (self.shortage, counters.refused_out_of_descriptors),
        ];
        let told: u64 = allowed.iter().map(|(_, count)| count).sum();
        told == counters.refused && allowed.iter().all(|(may, count)| *may || *count == 0)
    }
}
