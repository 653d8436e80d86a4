//! The decorator of a filter, which checks its answers against the rule of the setup's policy.

use super::script::Policy;
use super::world::World;
use crate::admission::connection_info::ConnectionInfo;
use crate::admission::filter::{Filter, Reservation};
use crate::admission::refusal::Rejection;

/// A filter whose operations yield to the script, and whose answers are checked against the rule of the setup's policy.
#[derive(Clone)]
pub struct InstrumentedFilter<F> {
    filter: F,
    policy: Policy,
    world: World,
    acceptor: usize,
}

/// What a connection holds of an [`InstrumentedFilter`], until the checker knows that it is released.
pub struct InstrumentedFilterPermit<P> {
    permit: Option<P>,
    /// A token of the rate was taken for it.
    has_token: bool,
    /// The connection that was admitted with it, if the policy counts by peer.
    admitted: Option<u64>,
    world: World,
}

impl<F: Filter> InstrumentedFilter<F> {
    pub(super) fn new(filter: F, policy: Policy, world: World, acceptor: usize) -> Self {
        Self { filter, policy, world, acceptor }
    }

    fn reserve_checked(&self) -> Reservation<InstrumentedFilterPermit<F::Permit>> {
        match self.filter.reserve() {
            Reservation::Granted(permit) => {
                let has_token = matches!(self.policy, Policy::Rate(_));
                if has_token {
                    self.world.lock().checker.on_token_taken();
                }
                let world = self.world.clone();
                Reservation::Granted(InstrumentedFilterPermit {
                    permit: Some(permit),
                    has_token,
                    admitted: None,
                    world,
                })
            }
            Reservation::RetryAfter(wait) => {
                self.world.lock().checker.on_retry_after(self.acceptor, wait);
                Reservation::RetryAfter(wait)
            }
            Reservation::Rejected(rejection) => Reservation::Rejected(rejection),
        }
    }

    /// Asks the filter and passes its answer to the checker, with nothing in between.
    fn admit_checked(
        &self,
        connection: &ConnectionInfo<'_>,
        permit: &mut InstrumentedFilterPermit<F::Permit>,
    ) -> Result<(), Rejection> {
        let Some(inner_permit) = &mut permit.permit else { return Ok(()) };
        let answer = self.filter.admit(connection, inner_permit);
        let mut inner = self.world.lock();
        match self.policy {
            Policy::ShedRate(_) if answer.is_ok() => {
                inner.checker.on_token_taken();
                permit.has_token = true;
            }
            Policy::Peers(_) | Policy::PeersThenChoosy(_) => {
                permit.admitted = inner.checker.on_answer(self.acceptor, &answer);
            }
            Policy::Delay | Policy::Allowed => {
                let admitted = inner.checker.on_answer(self.acceptor, &answer);
                inner.checker.peers.on_released(admitted);
            }
            Policy::Choosy if answer.is_err() => drop(inner.checker.on_answer(self.acceptor, &answer)),
            _ => {}
        }
        answer
    }
}

impl<F: Filter> Filter for InstrumentedFilter<F> {
    type Permit = InstrumentedFilterPermit<F::Permit>;

    fn reserve(&self) -> Reservation<Self::Permit> {
        self.world.yield_point();
        let reservation = self.reserve_checked();
        self.world.yield_point();
        reservation
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut Self::Permit) -> Result<(), Rejection> {
        self.world.yield_point();
        let answer = self.admit_checked(connection, permit);
        self.world.yield_point();
        answer
    }

    fn cancel(&self, mut permit: Self::Permit) {
        self.world.yield_point();
        if std::mem::take(&mut permit.has_token) {
            self.world.lock().checker.on_token_returned();
        }
        if let Some(permit) = permit.permit.take() {
            self.filter.cancel(permit);
        }
        self.world.lock().checker.peers.on_released(permit.admitted.take());
        self.world.yield_point();
    }

    fn needs_peer_addr(&self) -> bool {
        self.filter.needs_peer_addr()
    }
}

impl<P> Drop for InstrumentedFilterPermit<P> {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.world.lock().checker.peers.on_released(self.admitted.take());
    }
}

impl<F> std::fmt::Debug for InstrumentedFilter<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstrumentedFilter").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<P> std::fmt::Debug for InstrumentedFilterPermit<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstrumentedFilterPermit").finish_non_exhaustive()
    }
}
