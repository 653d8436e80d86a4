//! Compares accept queues between the first and the last snapshot.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;

use super::collect::QueueSnapshot;
use super::facts::Clients;
use crate::probe::{Connection, Listener, Phase};

/// The accept queue of a listener, as far as it can be separated from others on its address.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Whether a connection was accepted.
    pub(crate) any_accepted: Option<bool>,
    /// The number of connections that were accepted, or a lower bound.
    pub(crate) accepted_count: Option<usize>,
    /// Oldest first.
    pub(crate) waiting: Option<Rc<[Connection]>>,
    pub(crate) close_wait: Option<usize>,
    /// Includes connections that the client has reset: they stay in the queue, but sock_diag does not list
    /// them.
    pub(crate) dead: Option<usize>,
    pub(crate) shared: bool,
    /// The inodes of the accepted connections of this address.
    pub(crate) accepted: Vec<u64>,
    pub(crate) clients: Clients,
}

/// The queues in all snapshots. The first and the last snapshot list the connections too.
#[derive(Debug)]
pub(crate) struct Queues<'a> {
    snapshots: &'a [QueueSnapshot],
    groups: HashMap<SocketAddr, Group>,
}

impl<'a> Queues<'a> {
    pub(crate) fn of(snapshots: &'a [QueueSnapshot]) -> Self {
        let (Some(first), Some(last)) = (snapshots.first(), snapshots.last()) else {
            return Self { snapshots, groups: HashMap::new() };
        };
        // Once per address, not once per listener.
        let addresses: HashSet<SocketAddr> = first.listeners.iter().filter_map(Listener::socket).collect();
        let before = last_but_one(snapshots);
        let group = |address| (address, Group::of(address, [first, before, last]));
        Self { snapshots, groups: addresses.into_iter().map(group).collect() }
    }

    /// Returns the queue of a listener. `is_own` tells whether its processes have this accepted socket open.
    pub(crate) fn at(&self, listener: &Listener, is_own: impl Fn(u64) -> bool) -> Queue {
        let seen: Vec<&Listener> =
            self.snapshots.iter().filter_map(|snapshot| snapshot.find(listener)).collect();
        match listener.socket().and_then(|address| Some((address, self.groups.get(&address)?))) {
            Some((address, group)) => {
                let is_counted = |one: &Connection| group.members == 1 || is_own(one.inode);
                Queue { clients: self.clients(address, is_counted), ..group.queue_of(&seen) }
            }
            None => self.unix(listener, &seen),
        }
    }

    /// Counts the connections of an address outside the queue.
    fn clients(&self, address: SocketAddr, is_counted: impl Fn(&Connection) -> bool) -> Clients {
        let mut clients = Clients::default();
        let (Some(first), Some(last)) = (self.snapshots.first(), self.snapshots.last()) else {
            return clients;
        };
        let before: HashMap<[u8; 8], &Connection> = first.at(address).map(|one| (one.cookie, one)).collect();
        let was_accepted = |one: &Connection| before.get(&one.cookie).is_some_and(|then| then.is_accepted());
        for one in last.at(address) {
            let then = before.get(&one.cookie);
            match one.phase {
                Phase::Handshake => {
                    clients.handshakes += 1;
                    // Deferral is invisible in the last 1.1 s before a timeout.
                    let is_deferred = one.is_deferred || then.is_some_and(|then| then.is_deferred);
                    clients.deferred += usize::from(is_deferred);
                }
                Phase::Closed if then.is_none_or(|then| then.is_unowned()) => clients.new_closed += 1,
                Phase::Open if one.is_accepted() && is_counted(one) => {
                    clients.open += 1;
                    clients.new_open += usize::from(!was_accepted(one));
                    let is_unread = |then: &&&Connection| {
                        then.is_accepted() && then.unread > 0 && one.unread > 0 && then.read == one.read
                    };
                    clients.unread += usize::from(then.filter(is_unread).is_some());
                }
                _ => {}
            }
        }
        let mut read: HashMap<[u8; 8], usize> = HashMap::new();
        for one in self.snapshots.iter().skip(1).flat_map(|snapshot| snapshot.at(address)) {
            clients.arrived |= one.phase != Phase::Handshake && !before.contains_key(&one.cookie);
            if one.is_accepted() && is_counted(one) && !was_accepted(one) {
                clients.arrived = true;
                if one.read > Some(0) {
                    *read.entry(one.cookie).or_default() += 1;
                }
            }
        }
        // One that is read and closed at once may have been refused.
        clients.new_read = read.values().filter(|listings| **listings > 1).count();
        clients
    }

    /// Compares Unix queues. The kernel lists them in order, so connections missing at the head were accepted.
    fn unix(&self, listener: &Listener, seen: &[&Listener]) -> Queue {
        let steps = seen.windows(2).map(|pair| match (&pair[0].clients, &pair[1].clients) {
            (Some(before), Some(after)) => Some(popped(before, after)),
            // Too long to be listed: a shorter queue shows an accept, an equal one proves nothing.
            _ => pair[0]
                .queued
                .checked_sub(pair[1].queued)
                .filter(|count| *count > 0)
                .map(|count| count as usize),
        });
        // One step proves an accept; only all steps together prove that there was none.
        let steps: Vec<Option<usize>> = steps.collect();
        let count = steps.iter().flatten().sum();
        let any_accepted = if count > 0 { Some(true) } else { (!steps.contains(&None)).then_some(false) };
        let dead = seen.last().and_then(|last| last.closed_clients());
        let at = |snapshot: &QueueSnapshot| -> HashMap<u64, u32> {
            let own = snapshot.accepted_unix.iter().filter(|one| one.address == listener.address);
            own.map(|one| (one.inode, one.queued)).collect()
        };
        let ends = self.snapshots.first().zip(self.snapshots.last());
        let (first, last) = ends.map(|(first, last)| (at(first), at(last))).unwrap_or_default();
        let is_unread = |(inode, unread): (&u64, &u32)| {
            *unread > 0 && first.get(inode).is_some_and(|before| *before > 0 && before <= unread)
        };
        let clients = Clients {
            arrived: last.keys().any(|inode| !first.contains_key(inode)),
            new_open: last.keys().filter(|inode| !first.contains_key(inode)).count(),
            open: last.len(),
            unread: last.iter().filter(|one| is_unread(*one)).count(),
            ..Clients::default()
        };
        let accepted = last.into_keys().collect();
        Queue { any_accepted, accepted_count: Some(count), dead, accepted, clients, ..Queue::default() }
    }
}

fn last_but_one(snapshots: &[QueueSnapshot]) -> &QueueSnapshot {
    &snapshots[snapshots.len().saturating_sub(2)]
}

/// Returns how many connections were removed from the head.
fn popped(before: &[u32], after: &[u32]) -> usize {
    // A client that has closed shows as 0.
    let same = |(before, after): (&u32, &u32)| before == after || *after == 0;
    let fits = |count: &usize| {
        let rest = &before[*count..];
        rest.len() <= after.len() && rest.iter().zip(after).all(same)
    };
    (0..=before.len()).find(fits).unwrap_or(before.len())
}

/// The listeners on one address: with `SO_REUSEPORT` there may be several.
///
/// The kernel reports the queue length of each listener, but the connections only by address.
#[derive(Debug)]
struct Group {
    /// Oldest first.
    waiting: Rc<[Connection]>,
    accepted: Vec<u64>,
    close_wait: usize,
    reset: usize,
    members: usize,
    /// The number of listeners with a non-empty queue.
    non_empty: usize,
    oldest_remains: bool,
    /// The number of connections that left the queues.
    left: i64,
    /// The connections of the first snapshot that are no longer queued.
    gone: usize,
}

impl Group {
    fn of(address: SocketAddr, [first, before_last, last]: [&QueueSnapshot; 3]) -> Self {
        let before: Vec<&Connection> = first.at(address).filter(|one| one.is_unowned()).collect();
        let after: Vec<&Connection> = last.at(address).filter(|one| one.is_unowned()).collect();
        let known: HashSet<[u8; 8]> = before.iter().map(|waiting| waiting.cookie).collect();
        let arrived = after.iter().filter(|waiting| !known.contains(&waiting.cookie)).count();
        let remaining: HashSet<[u8; 8]> = after.iter().map(|waiting| waiting.cookie).collect();
        // The connections were listed between these two counts: the minimum excludes later arrivals, which
        // would count as reset.
        let queued = before_last.depth(address).min(last.depth(address));
        let mut waiting: Vec<Connection> = after.iter().map(|waiting| (*waiting).clone()).collect();
        waiting.sort_by_key(|waiting| Reverse(waiting.age));
        Self {
            close_wait: waiting.iter().filter(|waiting| waiting.close_wait).count(),
            reset: usize::try_from(queued).unwrap_or(0).saturating_sub(waiting.len()),
            members: last.group(address).count(),
            non_empty: last.group(address).filter(|member| member.queued > 0).count(),
            oldest_remains: oldest_remains(&before, &after),
            left: first.depth(address) + i64::try_from(arrived).unwrap_or(i64::MAX) - last.depth(address),
            accepted: last.at(address).filter(|one| one.is_accepted()).map(|one| one.inode).collect(),
            gone: before.iter().filter(|one| !remaining.contains(&one.cookie)).count(),
            waiting: waiting.into(),
        }
    }

    fn queue_of(&self, seen: &[&Listener]) -> Queue {
        let fell = seen.windows(2).any(|pair| pair[1].queued < pair[0].queued);
        let any_accepted = match self.members {
            1 => !self.oldest_remains && (fell || self.left > 0),
            // With several listeners only a queue that became shorter proves an accept.
            _ => fell,
        };
        let is_non_empty = seen.last().is_some_and(|last| last.queued > 0);
        let others_wait = self.non_empty > usize::from(is_non_empty);
        let shared = self.members > 1 && others_wait;
        let is_empty_member = shared && !is_non_empty;
        Queue {
            any_accepted: Some(any_accepted),
            accepted_count: (self.members == 1).then(|| self.accepted_count(any_accepted)),
            close_wait: Some(if is_empty_member { 0 } else { self.close_wait }),
            dead: Some(if is_empty_member { 0 } else { self.close_wait + self.reset }),
            shared: shared && is_non_empty,
            accepted: self.accepted.clone(),
            clients: Clients::default(),
            waiting: Some(if is_empty_member { Rc::default() } else { Rc::clone(&self.waiting) }),
        }
    }
}

impl Group {
    /// Returns the number of accepted connections, or a lower bound.
    fn accepted_count(&self, any: bool) -> usize {
        if any { self.gone.max(usize::try_from(self.left).unwrap_or(0)).max(1) } else { 0 }
    }
}

/// Returns whether the oldest connection is still queued. Then nothing was accepted: the queue is FIFO.
fn oldest_remains(before: &[&Connection], after: &[&Connection]) -> bool {
    let Some(age) = before.iter().map(|waiting| waiting.age).max() else { return false };
    let mut oldest = before.iter().filter(|waiting| waiting.age == age);
    oldest.all(|waiting| after.iter().any(|other| other.cookie == waiting.cookie))
}

impl QueueSnapshot {
    pub(super) fn find(&self, listener: &Listener) -> Option<&Listener> {
        self.listeners.iter().find(|other| other.cookie == listener.cookie)
    }

    fn group(&self, address: SocketAddr) -> impl Iterator<Item = &Listener> {
        let all = self.listeners.iter().chain(&self.others);
        all.filter(move |other| other.socket() == Some(address))
    }

    /// Returns the total queue length.
    fn depth(&self, address: SocketAddr) -> i64 {
        self.group(address).map(|member| i64::from(member.queued)).sum()
    }

    /// Iterates over the connections that arrived at this address.
    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &Connection> {
        let all = self.connections.iter().flatten();
        all.filter(move |waiting| waiting.arrived_at(address, &self.specific))
    }
}

#[cfg(test)]
mod tests {
    use super::popped;

    #[test]
    fn unix_queue_grows_without_accept() {
        for (before, after) in [
            (&[][..], &[][..]),
            (&[], &[1]),
            (&[1, 2], &[1, 2, 3]),
            (&[1, 2], &[0, 2]),
            (&[0, 0], &[0, 0, 7]),
        ] {
            assert_eq!(popped(before, after), 0, "{before:?} {after:?}");
        }
    }

    #[test]
    fn unix_queue_loses_its_head_by_accept() {
        assert_eq!(popped(&[1], &[]), 1);
        assert_eq!(popped(&[1, 2], &[2]), 1);
        assert_eq!(popped(&[1, 2], &[2, 3]), 1);
        assert_eq!(popped(&[0, 2], &[2, 3]), 1);
        assert_eq!(popped(&[1, 2, 3], &[4]), 3);
    }
}
