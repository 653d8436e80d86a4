//! Compares accept queues between the first and the last snapshot.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;

use super::collect::QueueSnapshot;
use crate::probe::connection::specific;
use crate::probe::{Connection, Listener};

/// The accept queue of a listener, as far as it can be separated from others on its address.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Whether a connection was accepted.
    pub(crate) any_accepted: Option<bool>,
    /// Oldest first.
    pub(crate) waiting: Option<Rc<[Connection]>>,
    pub(crate) close_wait: Option<usize>,
    /// Includes connections that the client has reset: they stay in the queue, but sock_diag does not list
    /// them.
    pub(crate) dead: Option<usize>,
    pub(crate) shared: bool,
    /// The inodes of the accepted connections of this address.
    pub(crate) accepted: Rc<[u64]>,
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

    pub(crate) fn at(&self, listener: &Listener) -> Queue {
        let seen: Vec<&Listener> =
            self.snapshots.iter().filter_map(|snapshot| snapshot.find(listener)).collect();
        match listener.socket().and_then(|address| self.groups.get(&address)) {
            Some(group) => group.queue_of(&seen),
            None => unix(&seen),
        }
    }
}

fn last_but_one(snapshots: &[QueueSnapshot]) -> &QueueSnapshot {
    &snapshots[snapshots.len().saturating_sub(2)]
}

/// Compares Unix queues. The kernel lists them in order, so connections missing at the head were accepted.
fn unix(seen: &[&Listener]) -> Queue {
    let steps = seen.windows(2).map(|pair| match (&pair[0].clients, &pair[1].clients) {
        (Some(before), Some(after)) => Some(was_popped(before, after)),
        // Too long to be listed: a shorter queue shows an accept, an equal one proves nothing.
        _ => (pair[1].queued < pair[0].queued).then_some(true),
    });
    // One step proves an accept; only all steps together prove that there was none.
    let steps: Vec<Option<bool>> = steps.collect();
    let any_accepted = match steps.contains(&Some(true)) {
        true => Some(true),
        false => (!steps.contains(&None)).then_some(false),
    };
    let dead = seen.last().and_then(|last| last.closed_clients());
    Queue { any_accepted, dead, ..Queue::default() }
}

/// Returns whether connections were removed from the head.
fn was_popped(before: &[u32], after: &[u32]) -> bool {
    // A client that has closed shows as 0.
    let same = |(before, after): (&u32, &u32)| before == after || *after == 0;
    after.len() < before.len() || !before.iter().zip(after).all(same)
}

/// The listeners on one address: with `SO_REUSEPORT` there may be several.
///
/// The kernel reports the queue length of each listener, but the connections only by address.
#[derive(Debug)]
struct Group {
    /// Oldest first.
    waiting: Rc<[Connection]>,
    accepted: Rc<[u64]>,
    close_wait: usize,
    reset: usize,
    members: usize,
    /// The number of listeners with a non-empty queue.
    non_empty: usize,
    oldest_remains: bool,
    /// The number of connections that left the queues.
    left: i64,
}

impl Group {
    fn of(address: SocketAddr, [first, before_last, last]: [&QueueSnapshot; 3]) -> Self {
        let before: Vec<&Connection> = first.at(address).filter(|one| one.is_unowned()).collect();
        let (after, accepted): (Vec<&Connection>, Vec<&Connection>) =
            last.at(address).partition(|one| one.is_unowned());
        let known: HashSet<[u8; 8]> = before.iter().map(|waiting| waiting.cookie).collect();
        let arrived = after.iter().filter(|waiting| !known.contains(&waiting.cookie)).count();
        // The connections were listed between these two snapshots. The minimum does not count later arrivals
        // as reset.
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
            accepted: accepted.iter().map(|connection| connection.inode).collect(),
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
            close_wait: Some(if is_empty_member { 0 } else { self.close_wait }),
            dead: Some(if is_empty_member { 0 } else { self.close_wait + self.reset }),
            shared: shared && is_non_empty,
            accepted: Rc::clone(&self.accepted),
            waiting: Some(if is_empty_member { Rc::default() } else { Rc::clone(&self.waiting) }),
        }
    }
}

/// Returns whether the oldest connection is still queued: the queue is FIFO, so nothing was accepted.
fn oldest_remains(before: &[&Connection], after: &[&Connection]) -> bool {
    let Some(age) = before.iter().map(|waiting| waiting.age).max() else { return false };
    let mut oldest = before.iter().filter(|waiting| waiting.age == age);
    oldest.all(|waiting| after.iter().any(|other| other.cookie == waiting.cookie))
}

impl QueueSnapshot {
    fn find(&self, listener: &Listener) -> Option<&Listener> {
        self.listeners.iter().find(|other| other.cookie == listener.cookie)
    }

    fn group(&self, address: SocketAddr) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(move |other| other.socket() == Some(address))
    }

    /// Returns the total queue length.
    fn depth(&self, address: SocketAddr) -> i64 {
        self.group(address).map(|member| i64::from(member.queued)).sum()
    }

    /// Iterates over the connections that arrived at this address.
    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &Connection> {
        let others = specific(self.listeners.iter().chain(&self.others));
        self.connections.iter().flatten().filter(move |waiting| waiting.arrived_at(address, &others))
    }
}

#[cfg(test)]
mod tests {
    use super::was_popped;

    #[test]
    fn unix_queue_grows_without_accept() {
        assert!(!was_popped(&[], &[]));
        assert!(!was_popped(&[], &[1]));
        assert!(!was_popped(&[1, 2], &[1, 2, 3]));
        assert!(!was_popped(&[1, 2], &[0, 2]));
        assert!(!was_popped(&[0, 0], &[0, 0, 7]));
    }

    #[test]
    fn unix_queue_loses_its_head_by_accept() {
        assert!(was_popped(&[1], &[]));
        assert!(was_popped(&[1, 2], &[2]));
        assert!(was_popped(&[1, 2], &[2, 3]));
        assert!(was_popped(&[0, 2], &[2, 3]));
    }
}
