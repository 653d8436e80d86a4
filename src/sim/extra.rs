//! The policies that a case may have besides its gate, and what the books say to their answers.

use std::net::SocketAddr;
use std::time::Duration;

use super::env::Env;
use super::script::Extra;
use crate::admission::bell::Bell;
use crate::admission::clock::Clock;
use crate::admission::gate::WhenFull;
use crate::admission::newcomer::Newcomer;
use crate::admission::policy::{Admission, Line, Reserve, Until};
use crate::admission::rate::{RateLimit, Token};
use crate::admission::refusal::{Cause, Denied, Refusal};
use crate::admission::sync::Arc;

/// The time of a run.
#[derive(Clone)]
pub(super) struct SimClock(Env);

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.0.lock().ledger.now()
    }
}

/// One policy, as an acceptor has it.
#[derive(Clone)]
pub(super) struct PointedExtra {
    policy: Policy,
    env: Env,
    acceptor: usize,
}

#[derive(Clone)]
enum Policy {
    Rate(RateLimit<SimClock>),
    Choosy,
}

/// What a connection holds of it.
pub(super) enum ExtraPermit {
    Token(Token),
    Nothing,
}

/// The one of three that is not liked.
pub(super) fn is_disliked(peer: Option<SocketAddr>) -> bool {
    peer.is_some_and(|peer| peer.port() % 3 == 1)
}

impl PointedExtra {
    /// The policy of a case, if it has one; clones are for each of its acceptors.
    pub(super) fn new(extra: Extra, env: &Env) -> Option<Self> {
        let rate = |burst| RateLimit::by(Extra::PER_SECOND, SimClock(env.clone())).burst(burst);
        let policy = match extra {
            Extra::Nothing => return None,
            Extra::Rate(burst) => Policy::Rate(rate(burst)),
            Extra::ShedRate(burst) => Policy::Rate(rate(burst).when_exceeded(WhenFull::Shed(Refusal::Close))),
            Extra::Choosy => Policy::Choosy,
        };
        Some(Self { policy, env: env.clone(), acceptor: 0 })
    }

    pub(super) fn of(&self, acceptor: usize) -> Self {
        Self { acceptor, ..self.clone() }
    }

    fn ask(&self) -> Reserve<ExtraPermit> {
        let Policy::Rate(rate) = &self.policy else { return Reserve::Room(ExtraPermit::Nothing) };
        match rate.reserve() {
            Reserve::Room(token) => {
                self.env.lock().ledger.takes_token();
                Reserve::Room(ExtraPermit::Token(token))
            }
            Reserve::NotBefore(wait) => {
                self.env.lock().ledger.throttles(self.acceptor, wait);
                Reserve::NotBefore(wait)
            }
            Reserve::Shed(denied) => Reserve::Shed(denied),
            Reserve::Full => Reserve::Full,
        }
    }
}

impl Admission for PointedExtra {
    type Permit = ExtraPermit;

    fn reserve(&self) -> Reserve<ExtraPermit> {
        self.env.point();
        let answer = self.ask();
        self.env.point();
        answer
    }

    fn never_waits(&self) -> bool {
        match &self.policy {
            Policy::Rate(rate) => rate.never_waits(),
            Policy::Choosy => false,
        }
    }

    fn admit(&self, newcomer: &dyn Newcomer, _: &mut ExtraPermit) -> Result<(), Denied> {
        self.env.point();
        let liked = !(matches!(self.policy, Policy::Choosy) && is_disliked(newcomer.peer()));
        if !liked {
            self.env.lock().ledger.denies(self.acceptor);
        }
        self.env.point();
        if liked { Ok(()) } else { Err(Denied::new(Cause::Policy, Refusal::Close)) }
    }

    fn wants_peer(&self) -> bool {
        matches!(self.policy, Policy::Choosy)
    }

    fn cancel(&self, permit: ExtraPermit) {
        self.env.point();
        if let (Policy::Rate(rate), ExtraPermit::Token(token)) = (&self.policy, permit) {
            self.env.lock().ledger.gives_token();
            rate.cancel(token);
        }
        self.env.point();
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        match &self.policy {
            Policy::Rate(rate) => rate.stand(bell, until),
            Policy::Choosy => match until {
                Until::Room => Line::Room,
                Until::Release => Line::Standing,
            },
        }
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<ExtraPermit> {
        None
    }
}
