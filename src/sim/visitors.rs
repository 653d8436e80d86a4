//! The part of the books that is about who comes: peers, how long they were queued, and who may come at all. Follows
//! each connection by itself, and knows the rules of a case and nothing of how a policy keeps them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::ledger::Violation;
use super::script::Policy;
use crate::admission::newcomer::Credentials;
use crate::admission::refusal::{Cause, Rejection};

/// A connection that was taken.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) peer: Option<IpAddr>,
    pub(super) credentials: Option<Credentials>,
    /// Whether it is in the group that may come.
    pub(super) in_group: Option<bool>,
    pub(super) queued: Option<Duration>,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Address(Option<IpAddr>),
    User(u32),
}

#[derive(Debug)]
struct Inside {
    visitor: Visitor,
    /// A policy has let it in, and its place has not come back.
    has_place: bool,
    delivered: bool,
    open: bool,
}

/// All who came and have not gone, and how long they were queued. Knows nothing where the case has no rule for it.
#[derive(Debug, Default)]
pub(super) struct Visitors {
    extra: Option<Policy>,
    inside: BTreeMap<u64, Inside>,
    /// What each acceptor took last.
    in_hand: BTreeMap<usize, u64>,
    /// Every wait above the target since the last that was not: when it was seen, and how long it was.
    high: Vec<(Duration, Duration)>,
    violation: Option<Violation>,
}

impl Visitors {
    pub(super) fn watch(&mut self, extra: Policy) {
        let has_rules =
            matches!(extra, Policy::Peers(_) | Policy::PeersThenChoosy(_) | Policy::Delay | Policy::Allowed);
        self.extra = has_rules.then_some(extra);
    }

    /// Whether anything has to be known of a connection.
    pub(super) const fn watches(&self) -> bool {
        self.extra.is_some()
    }

    /// An acceptor took a connection.
    pub(super) fn comes(&mut self, acceptor: usize, serial: u64, visitor: Visitor) {
        self.in_hand.insert(acceptor, serial);
        self.inside.insert(serial, Inside { visitor, has_place: false, delivered: false, open: true });
    }

    /// A policy let in what an acceptor took last; its number.
    pub(super) fn lets_in(&mut self, acceptor: usize, now: Duration) -> Option<u64> {
        let serial = *self.in_hand.get(&acceptor)?;
        let visitor = self.inside.get(&serial)?.visitor.clone();
        if let (Some(Policy::Delay), Some(queued)) = (self.extra, visitor.queued) {
            let high = self.has_been_high(now, queued);
            if high == Some(true) && queued > 2 * Policy::TARGET {
                self.violate(
                    "P5",
                    format!("one that was queued {queued:?} was let in by an overloaded policy"),
                );
            }
            self.sees(now, queued);
        }
        if let Some(inside) = self.inside.get_mut(&serial) {
            inside.has_place = true;
        }
        Some(serial)
    }

    /// A policy refused what an acceptor took last.
    pub(super) fn denies(&mut self, acceptor: usize, now: Duration, denied: &Rejection) {
        let Some(inside) = self.in_hand.get(&acceptor).and_then(|serial| self.inside.get(serial)) else {
            return;
        };
        let visitor = inside.visitor.clone();
        match (denied.cause, self.extra) {
            (Cause::Peer, Some(Policy::Peers(limit) | Policy::PeersThenChoosy(limit))) => {
                let peer = visitor.counts_as();
                let places = self.count(peer, |inside| inside.has_place);
                if places < limit {
                    self.violate("P4", format!("{peer:?} has {places} of {limit} places, and was refused"));
                }
            }
            (Cause::Delay, Some(Policy::Delay)) => {
                let Some(queued) = visitor.queued else {
                    return self
                        .violate("P5", "one was refused of which nobody knows how long it was queued");
                };
                let high = self.has_been_high(now, queued);
                if queued <= 2 * Policy::TARGET {
                    self.violate("P5", format!("one that was queued {queued:?} was refused"));
                } else if high == Some(false) && queued <= Policy::MAX_DELAY {
                    self.violate(
                        "P5",
                        format!("one that was queued {queued:?} was refused without overload"),
                    );
                }
                self.sees(now, queued);
            }
            (Cause::Credentials, Some(Policy::Allowed)) => {
                if visitor.is_allowed() {
                    self.violate("P5", format!("{visitor:?} may come in, and was refused"));
                }
            }
            (Cause::Policy, _) => {}
            (cause, extra) => self.violate("P5", format!("refused for {cause:?} by {extra:?}")),
        }
    }

    /// The user has it.
    pub(super) fn delivers(&mut self, serial: u64) {
        let Some(inside) = self.inside.get_mut(&serial) else { return };
        inside.delivered = true;
        let visitor = inside.visitor.clone();
        match self.extra {
            Some(Policy::Peers(limit) | Policy::PeersThenChoosy(limit)) => {
                let peer = visitor.counts_as();
                let served = self.count(peer, |inside| inside.delivered && inside.open);
                if served > limit {
                    self.violate(
                        "P3",
                        format!("{served} connections of {peer:?} are in service, limit {limit}"),
                    );
                }
            }
            Some(Policy::Delay) if visitor.queued.is_some_and(|queued| queued > Policy::MAX_DELAY) => {
                self.violate("P5", format!("one that was queued {:?} was delivered", visitor.queued));
            }
            Some(Policy::Allowed) if !visitor.is_allowed() => {
                self.violate("P5", format!("{visitor:?} may not come in, and was delivered"));
            }
            _ => {}
        }
    }

    /// Its stream is closed.
    pub(super) fn closes(&mut self, serial: u64) {
        self.ends(serial, |inside| inside.open = false);
    }

    /// Its place has come back.
    pub(super) fn gives_place(&mut self, serial: u64) {
        self.ends(serial, |inside| inside.has_place = false);
    }

    /// The first rule that was broken since this was last asked.
    pub(super) fn violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    fn ends(&mut self, serial: u64, end: impl FnOnce(&mut Inside)) {
        if let Some(inside) = self.inside.get_mut(&serial) {
            end(inside);
            if !inside.open && !inside.has_place {
                self.inside.remove(&serial);
            }
        }
    }

    fn count(&self, peer: Peer, which: impl Fn(&Inside) -> bool) -> u32 {
        let of_peer = |inside: &&Inside| inside.visitor.counts_as() == peer && which(inside);
        u32::try_from(self.inside.values().filter(of_peer).count()).unwrap_or(u32::MAX)
    }

    fn sees(&mut self, now: Duration, queued: Duration) {
        if queued > Policy::TARGET {
            self.high.push((now, queued));
        } else {
            self.high.clear();
        }
    }

    /// Whether every wait was above the target for an interval, up to one that is seen now: `None` if one might see it
    /// so or not, because for a while nobody came.
    fn has_been_high(&self, now: Duration, queued: Duration) -> Option<bool> {
        if queued <= Policy::TARGET {
            return Some(false);
        }
        let lasted = now.saturating_sub(self.high.first().map_or(now, |(seen, _)| *seen));
        // A policy may cut off what is no whole millisecond.
        if lasted + Duration::from_millis(1) <= Policy::INTERVAL {
            return Some(false);
        }
        let this = (now, queued);
        let next = self.high.iter().skip(1).chain([&this]);
        let steady = self
            .high
            .iter()
            .zip(next)
            .all(|((seen, _), (next, queued))| *next - *seen <= Policy::INTERVAL.max(*queued));
        (steady && lasted >= Policy::INTERVAL + Duration::from_millis(1)).then_some(true)
    }

    fn violate(&mut self, promise: &'static str, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { promise, what: what.into() });
    }
}

impl Visitor {
    fn counts_as(&self) -> Peer {
        match (self.peer, self.credentials) {
            (None, Some(credentials)) => Peer::User(credentials.uid),
            (address, _) => Peer::Address(address),
        }
    }

    fn is_allowed(&self) -> bool {
        self.credentials.is_some_and(|credentials| credentials.uid == Policy::USER)
            || self.in_group == Some(true)
    }
}
