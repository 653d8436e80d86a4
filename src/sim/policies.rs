//! The filters that a setup may have behind its gate.

use std::net::SocketAddr;
use std::sync::Arc;

use super::script::Policy;
use crate::admission::allowed_users::AllowedUsers;
use crate::admission::clock::Clock;
use crate::admission::connection_info::ConnectionInfo;
use crate::admission::filter::{Filter, Reservation};
use crate::admission::gate::WhenFull;
use crate::admission::peer_limit::{PeerLimit, PeerPermit};
use crate::admission::queue_delay::QueueDelay;
use crate::admission::rate_limit::{RateLimit, RatePermit};
use crate::admission::refusal::{Refusal, Rejection};

/// A filter that carries out the [`Policy`] of a setup: the crate's own ([`BuiltIn`]), or one of a test.
pub trait PolicyFilter: Filter<Permit: Send> + Clone + 'static {
    /// Makes the filter; `None` if the policy needs none.
    fn of(policy: Policy, clock: &Arc<dyn Clock>) -> Option<Self>;
}

/// The crate's own filter for a policy.
#[derive(Clone, Debug)]
pub enum BuiltIn {
    /// [`RateLimit`]
    Rate(RateLimit<Arc<dyn Clock>>),
    /// [`PeerLimit`]
    Peers(PeerLimit),
    /// [`QueueDelay`]
    Delay(QueueDelay<Arc<dyn Clock>>),
    /// [`AllowedUsers`]
    Allowed(AllowedUsers),
    /// Rejects one peer in three.
    Choosy,
}

/// What a connection holds of a [`BuiltIn`].
#[derive(Debug)]
pub enum BuiltInPermit {
    /// Of [`BuiltIn::Rate`].
    Rate(RatePermit),
    /// Of [`BuiltIn::Peers`].
    Peers(PeerPermit),
    /// Of the others.
    Nothing,
}

/// Whether the peer is the one in three that [`Policy::Choosy`] rejects.
pub(super) fn is_rejected(peer: Option<SocketAddr>) -> bool {
    peer.is_some_and(|peer| peer.port() % 3 == 1)
}

impl PolicyFilter for BuiltIn {
    fn of(policy: Policy, clock: &Arc<dyn Clock>) -> Option<Self> {
        let rate = |burst| RateLimit::builder(Policy::PER_SECOND).clock(Arc::clone(clock)).burst(burst);
        Some(match policy {
            Policy::Nothing => return None,
            Policy::Rate(burst) => Self::Rate(rate(burst).build()),
            Policy::ShedRate(burst) => {
                Self::Rate(rate(burst).when_exceeded(WhenFull::Shed(Refusal::Close)).build())
            }
            Policy::Choosy => Self::Choosy,
            Policy::Peers(limit) | Policy::PeersThenChoosy(limit) => {
                Self::Peers(PeerLimit::builder(limit).capacity(8).build())
            }
            Policy::Delay => Self::Delay(
                QueueDelay::builder(Policy::TARGET)
                    .clock(Arc::clone(clock))
                    .interval(Policy::INTERVAL)
                    .max_delay(Policy::MAX_DELAY)
                    .build(),
            ),
            Policy::Allowed => Self::Allowed(AllowedUsers::new().user(Policy::USER).group(Policy::GROUP)),
        })
    }
}

impl Filter for BuiltIn {
    type Permit = BuiltInPermit;

    fn reserve(&self) -> Reservation<BuiltInPermit> {
        match self {
            Self::Rate(rate) => match rate.reserve() {
                Reservation::Granted(permit) => Reservation::Granted(BuiltInPermit::Rate(permit)),
                Reservation::RetryAfter(wait) => Reservation::RetryAfter(wait),
                Reservation::Rejected(rejection) => Reservation::Rejected(rejection),
            },
            Self::Peers(peers) => match peers.reserve() {
                Reservation::Granted(permit) => Reservation::Granted(BuiltInPermit::Peers(permit)),
                Reservation::RetryAfter(wait) => Reservation::RetryAfter(wait),
                Reservation::Rejected(rejection) => Reservation::Rejected(rejection),
            },
            Self::Delay(_) | Self::Allowed(_) | Self::Choosy => Reservation::Granted(BuiltInPermit::Nothing),
        }
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut BuiltInPermit) -> Result<(), Rejection> {
        match (self, permit) {
            (Self::Rate(rate), BuiltInPermit::Rate(permit)) => rate.admit(connection, permit),
            (Self::Peers(peers), BuiltInPermit::Peers(permit)) => peers.admit(connection, permit),
            (Self::Delay(delay), _) => delay.admit(connection, &mut ()),
            (Self::Allowed(allowed), _) => allowed.admit(connection, &mut ()),
            (Self::Choosy, _) if is_rejected(connection.peer()) => Err(Rejection::close()),
            _ => Ok(()),
        }
    }

    fn cancel(&self, permit: BuiltInPermit) {
        match (self, permit) {
            (Self::Rate(rate), BuiltInPermit::Rate(permit)) => rate.cancel(permit),
            (Self::Peers(peers), BuiltInPermit::Peers(permit)) => peers.cancel(permit),
            _ => {}
        }
    }

    fn needs_peer_addr(&self) -> bool {
        match self {
            Self::Peers(peers) => peers.needs_peer_addr(),
            Self::Choosy => true,
            Self::Rate(_) | Self::Delay(_) | Self::Allowed(_) => false,
        }
    }
}
