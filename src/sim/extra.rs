//! The policies that a case may have besides its gate, and what the books say to their answers.

use std::net::SocketAddr;
use std::time::Duration;

use super::env::Env;
use super::script::Policy;
use crate::admission::bell::Bell;
use crate::admission::clock::Clock;
use crate::admission::credentials::AllowedUsers;
use crate::admission::delay::QueueDelay;
use crate::admission::gate::WhenFull;
use crate::admission::newcomer::ConnectionInfo;
use crate::admission::peers::{PeerLimit, PeerPermit};
use crate::admission::policy::{Admission, Line, Reserve, Until};
use crate::admission::rate::{RateLimit, RatePermit};
use crate::admission::refusal::{Cause, Refusal, Rejection};
use crate::admission::sync::Arc;

/// The time of a run.
#[derive(Clone)]
pub(super) struct SimClock(Env);

impl SimClock {
    pub(super) fn of(env: &Env) -> Self {
        Self(env.clone())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.0.lock().ledger.now()
    }
}

/// One policy, as an acceptor has it.
#[derive(Clone)]
pub(super) struct InstrumentedPolicy {
    policy: Kind,
    env: Env,
    acceptor: usize,
}

#[derive(Clone)]
enum Kind {
    Rate(RateLimit<SimClock>),
    Choosy,
    Peers(PeerLimit),
    Delay(QueueDelay<SimClock>),
    Allowed(AllowedUsers),
}

/// What a connection holds of it.
pub(super) enum ExtraPermit {
    Token(RatePermit),
    Place(CountedPlace),
    Nothing,
}

/// A place among those of a peer, until the books know that it is back.
pub(super) struct CountedPlace {
    permit: Option<PeerPermit>,
    visitor: Option<u64>,
    env: Env,
}

impl Drop for CountedPlace {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.env.lock().visitor_goes(self.visitor.take());
    }
}

/// The one of three that is not liked.
pub(super) fn is_disliked(peer: Option<SocketAddr>) -> bool {
    peer.is_some_and(|peer| peer.port() % 3 == 1)
}

impl InstrumentedPolicy {
    /// The policies of a case; clones are for each of its acceptors.
    pub(super) fn all(extra: Policy, env: &Env) -> (Option<Self>, Option<Self>) {
        let choosy = matches!(extra, Policy::PeersThenChoosy(_)).then_some(Kind::Choosy);
        let made = |policy| Self { policy, env: env.clone(), acceptor: 0 };
        (Self::policy(extra, env).map(made), choosy.map(made))
    }

    fn policy(extra: Policy, env: &Env) -> Option<Kind> {
        let clock = || SimClock::of(env);
        let rate = |burst| RateLimit::with_clock(Policy::PER_SECOND, clock()).burst(burst);
        Some(match extra {
            Policy::Nothing => return None,
            Policy::Rate(burst) => Kind::Rate(rate(burst)),
            Policy::ShedRate(burst) => Kind::Rate(rate(burst).when_exceeded(WhenFull::Shed(Refusal::Close))),
            Policy::Choosy => Kind::Choosy,
            Policy::Peers(limit) | Policy::PeersThenChoosy(limit) => {
                Kind::Peers(PeerLimit::new(limit).capacity(8))
            }
            Policy::Delay => Kind::Delay(
                QueueDelay::with_clock(Policy::TARGET, clock())
                    .interval(Policy::INTERVAL)
                    .max_delay(Policy::MAX_DELAY),
            ),
            Policy::Allowed => Kind::Allowed(AllowedUsers::new().user(Policy::USER).group(Policy::GROUP)),
        })
    }

    pub(super) fn of(&self, acceptor: usize) -> Self {
        Self { acceptor, ..self.clone() }
    }

    fn ask(&self) -> Reserve<ExtraPermit> {
        match &self.policy {
            Kind::Rate(rate) => match rate.reserve() {
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
            },
            Kind::Peers(peers) => match peers.reserve() {
                Reserve::Room(permit) => Reserve::Room(ExtraPermit::Place(CountedPlace {
                    permit: Some(permit),
                    visitor: None,
                    env: self.env.clone(),
                })),
                _ => Reserve::Full,
            },
            Kind::Choosy | Kind::Delay(_) | Kind::Allowed(_) => Reserve::Room(ExtraPermit::Nothing),
        }
    }

    /// What the policy says, and then, with nothing in between, what the books say to that.
    fn answer(&self, newcomer: &dyn ConnectionInfo, permit: &mut ExtraPermit) -> Result<(), Rejection> {
        let answer = match (&self.policy, &mut *permit) {
            (Kind::Peers(peers), ExtraPermit::Place(CountedPlace { permit: Some(permit), .. })) => {
                peers.admit(newcomer, permit)
            }
            (Kind::Delay(delay), _) => delay.admit(newcomer, &mut ()),
            (Kind::Allowed(allowed), _) => allowed.admit(newcomer, &mut ()),
            (Kind::Choosy, _) if is_disliked(newcomer.peer()) => {
                Err(Rejection::new(Cause::Policy, Refusal::Close))
            }
            // Behind another it has no books of its own.
            (Kind::Choosy | Kind::Rate(_) | Kind::Peers(_), _) => return Ok(()),
        };
        let mut inner = self.env.lock();
        let visitor = inner.answers(self.acceptor, &answer);
        match permit {
            ExtraPermit::Place(place) => place.visitor = visitor,
            _ => inner.visitor_goes(visitor),
        }
        answer
    }
}

impl Admission for InstrumentedPolicy {
    type Permit = ExtraPermit;

    fn reserve(&self) -> Reserve<ExtraPermit> {
        self.env.point();
        let answer = self.ask();
        self.env.point();
        answer
    }

    fn never_waits(&self) -> bool {
        match &self.policy {
            Kind::Rate(rate) => rate.never_waits(),
            Kind::Choosy => false,
            Kind::Peers(peers) => peers.never_waits(),
            Kind::Delay(delay) => delay.never_waits(),
            Kind::Allowed(allowed) => allowed.never_waits(),
        }
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, permit: &mut ExtraPermit) -> Result<(), Rejection> {
        self.env.point();
        let answer = self.answer(newcomer, permit);
        self.env.point();
        answer
    }

    fn wants_peer(&self) -> bool {
        match &self.policy {
            Kind::Rate(rate) => rate.wants_peer(),
            Kind::Choosy => true,
            Kind::Peers(peers) => peers.wants_peer(),
            Kind::Delay(delay) => delay.wants_peer(),
            Kind::Allowed(allowed) => allowed.wants_peer(),
        }
    }

    fn cancel(&self, permit: ExtraPermit) {
        self.env.point();
        match (&self.policy, permit) {
            (Kind::Rate(rate), ExtraPermit::Token(token)) => {
                self.env.lock().ledger.gives_token();
                rate.cancel(token);
            }
            (Kind::Peers(peers), ExtraPermit::Place(mut place)) => {
                place.permit.take().into_iter().for_each(|permit| peers.cancel(permit));
            }
            _ => {}
        }
        self.env.point();
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        match (&self.policy, until) {
            (Kind::Rate(rate), _) => rate.stand(bell, until),
            (Kind::Peers(peers), _) => peers.stand(bell, until),
            (Kind::Delay(delay), _) => delay.stand(bell, until),
            (Kind::Allowed(allowed), _) => allowed.stand(bell, until),
            (Kind::Choosy, Until::Room) => Line::Room,
            (Kind::Choosy, Until::Release) => Line::Standing,
        }
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<ExtraPermit> {
        None
    }
}
