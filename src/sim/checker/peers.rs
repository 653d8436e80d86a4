//! What is checked about peers: how many connections each has, how long they were queued, and which may connect at all.
//! Knows the rule of a policy, and nothing of how a filter keeps it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::super::script::Policy;
use super::Violation;
use crate::admission::connection_info::Credentials;
use crate::admission::refusal::{Cause, Rejection};

/// The peer of a connection that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<IpAddr>,
    pub(crate) credentials: Option<Credentials>,
    /// Whether it is in the group that may connect.
    pub(crate) in_group: Option<bool>,
    pub(crate) queue_time: Option<Duration>,
}

/// Connections with the same key are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PeerKey {
    Address(Option<IpAddr>),
    User(u32),
}

#[derive(Debug)]
struct Accepted {
    peer: Peer,
    /// A filter has admitted it, and its permit is not released.
    has_permit: bool,
    delivered: bool,
    open: bool,
}

/// The connections that were accepted and not closed. Knows nothing where the policy has no rule about peers.
#[derive(Debug, Default)]
pub(crate) struct PeerChecker {
    policy: Option<Policy>,
    accepted: BTreeMap<u64, Accepted>,
    /// What each acceptor accepted last.
    last: BTreeMap<usize, u64>,
    /// Every queue time since the last one within the target: when it was seen, and how long it was.
    above_target: Vec<(Duration, Duration)>,
    violation: Option<Violation>,
}

impl PeerChecker {
    pub(crate) fn watch(&mut self, policy: Policy) {
        let has_rules =
            matches!(policy, Policy::Peers(_) | Policy::PeersThenChoosy(_) | Policy::Delay | Policy::Allowed);
        self.policy = has_rules.then_some(policy);
    }

    /// Whether the peer of a connection must be known.
    pub(crate) const fn watches(&self) -> bool {
        self.policy.is_some()
    }

    /// An acceptor accepted a connection.
    pub(crate) fn on_accept(&mut self, acceptor: usize, serial: u64, peer: Peer) {
        self.last.insert(acceptor, serial);
        self.accepted.insert(serial, Accepted { peer, has_permit: false, delivered: false, open: true });
    }

    /// A filter admitted what an acceptor accepted last; returns its number.
    pub(super) fn on_admitted(&mut self, acceptor: usize, now: Duration) -> Option<u64> {
        let serial = *self.last.get(&acceptor)?;
        let peer = self.accepted.get(&serial)?.peer.clone();
        if let (Some(Policy::Delay), Some(queued)) = (self.policy, peer.queue_time) {
            let high = self.has_been_above(now, queued);
            if high == Some(true) && queued > 2 * Policy::TARGET {
                self.violate(
                    "P5",
                    format!("a connection queued for {queued:?} was admitted during overload"),
                );
            }
            self.sees(now, queued);
        }
        if let Some(accepted) = self.accepted.get_mut(&serial) {
            accepted.has_permit = true;
        }
        Some(serial)
    }

    /// A filter rejected what an acceptor accepted last.
    pub(super) fn on_rejected(&mut self, acceptor: usize, now: Duration, rejection: &Rejection) {
        let Some(accepted) = self.last.get(&acceptor).and_then(|serial| self.accepted.get(serial)) else {
            return;
        };
        let peer = accepted.peer.clone();
        match (rejection.cause, self.policy) {
            (Cause::Peer, Some(Policy::Peers(limit) | Policy::PeersThenChoosy(limit))) => {
                let key = peer.key();
                let permits = self.count(key, |accepted| accepted.has_permit);
                if permits < limit {
                    self.violate("P4", format!("{peer:?} has {permits} of {limit} permits, and was refused"));
                }
            }
            (Cause::Delay, Some(Policy::Delay)) => {
                let Some(queued) = peer.queue_time else {
                    return self.violate("P5", "a connection without a queue time was refused");
                };
                let high = self.has_been_above(now, queued);
                if queued <= 2 * Policy::TARGET {
                    self.violate("P5", format!("a connection queued for {queued:?} was refused"));
                } else if high == Some(false) && queued <= Policy::MAX_DELAY {
                    self.violate(
                        "P5",
                        format!("a connection queued for {queued:?} was refused without overload"),
                    );
                }
                self.sees(now, queued);
            }
            (Cause::Credentials, Some(Policy::Allowed)) => {
                if peer.is_allowed() {
                    self.violate("P5", format!("{peer:?} is allowed, and was refused"));
                }
            }
            (Cause::Filter, _) => {}
            (cause, policy) => self.violate("P5", format!("refused for {cause:?} by {policy:?}")),
        }
    }

    /// The owner has the connection.
    pub(crate) fn on_delivery(&mut self, serial: u64) {
        let Some(accepted) = self.accepted.get_mut(&serial) else { return };
        accepted.delivered = true;
        let peer = accepted.peer.clone();
        match self.policy {
            Some(Policy::Peers(limit) | Policy::PeersThenChoosy(limit)) => {
                let key = peer.key();
                let served = self.count(key, |accepted| accepted.delivered && accepted.open);
                if served > limit {
                    self.violate(
                        "P3",
                        format!("{served} connections of {peer:?} are in service, limit {limit}"),
                    );
                }
            }
            Some(Policy::Delay) if peer.queue_time.is_some_and(|queued| queued > Policy::MAX_DELAY) => {
                self.violate("P5", format!("a connection queued for {:?} was delivered", peer.queue_time));
            }
            Some(Policy::Allowed) if !peer.is_allowed() => {
                self.violate("P5", format!("{peer:?} is not allowed, and was delivered"));
            }
            _ => {}
        }
    }

    /// Its stream is closed.
    pub(crate) fn on_close(&mut self, serial: u64) {
        self.ends(serial, |accepted| accepted.open = false);
    }

    pub(crate) fn on_released(&mut self, serial: Option<u64>) {
        if let Some(serial) = serial {
            self.ends(serial, |accepted| accepted.has_permit = false);
        }
    }

    /// The first rule that was broken since this was last asked.
    pub(super) fn violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    fn ends(&mut self, serial: u64, end: impl FnOnce(&mut Accepted)) {
        if let Some(accepted) = self.accepted.get_mut(&serial) {
            end(accepted);
            if !accepted.open && !accepted.has_permit {
                self.accepted.remove(&serial);
            }
        }
    }

    fn count(&self, key: PeerKey, which: impl Fn(&Accepted) -> bool) -> u32 {
        let of_peer = |accepted: &&Accepted| accepted.peer.key() == key && which(accepted);
        u32::try_from(self.accepted.values().filter(of_peer).count()).unwrap_or(u32::MAX)
    }

    fn sees(&mut self, now: Duration, queued: Duration) {
        if queued > Policy::TARGET {
            self.above_target.push((now, queued));
        } else {
            self.above_target.clear();
        }
    }

    /// Whether every queue time was above the target for an interval, including the one seen now; `None` if a filter
    /// may decide either way, because for a while no connection was accepted.
    fn has_been_above(&self, now: Duration, queued: Duration) -> Option<bool> {
        if queued <= Policy::TARGET {
            return Some(false);
        }
        let lasted = now.saturating_sub(self.above_target.first().map_or(now, |(seen, _)| *seen));
        // A filter may round down to milliseconds.
        if lasted + Duration::from_millis(1) <= Policy::INTERVAL {
            return Some(false);
        }
        let this = (now, queued);
        let next = self.above_target.iter().skip(1).chain([&this]);
        let steady = self
            .above_target
            .iter()
            .zip(next)
            .all(|((seen, _), (next, queued))| *next - *seen <= Policy::INTERVAL.max(*queued));
        (steady && lasted >= Policy::INTERVAL + Duration::from_millis(1)).then_some(true)
    }

    fn violate(&mut self, promise: &'static str, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { promise, what: what.into() });
    }
}

impl Peer {
    fn key(&self) -> PeerKey {
        match (self.address, self.credentials) {
            (None, Some(credentials)) => PeerKey::User(credentials.uid),
            (address, _) => PeerKey::Address(address),
        }
    }

    fn is_allowed(&self) -> bool {
        self.credentials.is_some_and(|credentials| credentials.uid == Policy::USER)
            || self.in_group == Some(true)
    }
}
