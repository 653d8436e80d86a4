//! What became of the queue between the first look and the last.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;

use super::gather::Look;
use crate::see::waiting::specific;
use crate::see::{Listener, Waiting};

/// A listener's queue, as far as it can be told from its siblings'.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Whether anything was taken from it.
    pub(crate) taken: Option<bool>,
    /// The oldest first.
    pub(crate) waiting: Option<Rc<[Waiting]>>,
    pub(crate) close_wait: Option<usize>,
    /// With those that the client has reset: they stay in the queue, and out of the kernel's list.
    pub(crate) dead: Option<usize>,
    pub(crate) shared: bool,
    /// The inodes of the connections to this address that are accepted.
    pub(crate) accepted: Rc<[u64]>,
}

/// All queues through all looks; the first and the last look list the connections, too.
#[derive(Debug)]
pub(crate) struct Queues<'a> {
    looks: &'a [Look],
    groups: HashMap<SocketAddr, Group>,
}

impl<'a> Queues<'a> {
    pub(crate) fn of(looks: &'a [Look]) -> Self {
        let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
            return Self { looks, groups: HashMap::new() };
        };
        // Of one address once, and not once for each of its listeners.
        let addresses: HashSet<SocketAddr> = first.listeners.iter().filter_map(Listener::socket).collect();
        let before = last_but_one(looks);
        let group = |address| (address, Group::of(address, [first, before, last]));
        Self { looks, groups: addresses.into_iter().map(group).collect() }
    }

    pub(crate) fn at(&self, listener: &Listener) -> Queue {
        let seen: Vec<&Listener> = self.looks.iter().filter_map(|look| look.find(listener)).collect();
        match listener.socket().and_then(|address| self.groups.get(&address)) {
            Some(group) => group.queue_of(&seen),
            None => unix(&seen),
        }
    }
}

fn last_but_one(looks: &[Look]) -> &Look {
    &looks[looks.len().saturating_sub(2)]
}

/// The kernel lists a Unix queue in order, so what is gone from its head was taken.
fn unix(seen: &[&Listener]) -> Queue {
    let steps = seen.windows(2).map(|pair| match (&pair[0].clients, &pair[1].clients) {
        (Some(before), Some(after)) => Some(is_shifted(before, after)),
        // Too many to be listed: what is taken shows, unless as many come.
        _ => (pair[1].queued < pair[0].queued).then_some(true),
    });
    // One step that took is enough to know; that nothing was taken every step has to say.
    let steps: Vec<Option<bool>> = steps.collect();
    let taken = match steps.contains(&Some(true)) {
        true => Some(true),
        false => (!steps.contains(&None)).then_some(false),
    };
    let dead = seen.last().and_then(|last| last.gone_clients());
    Queue { taken, dead, ..Queue::default() }
}

/// Whether the second list can only be had from the first by taking from its head.
fn is_shifted(before: &[u32], after: &[u32]) -> bool {
    // A client that has gone shows as zero from then on.
    let same = |(before, after): (&u32, &u32)| before == after || *after == 0;
    after.len() < before.len() || !before.iter().zip(after).all(same)
}

/// The listeners on one address: with `SO_REUSEPORT` there may be several.
///
/// TCP tells how many wait at each of them, and who waits at all of them together.
#[derive(Debug)]
struct Group {
    /// The oldest first.
    waiting: Rc<[Waiting]>,
    accepted: Rc<[u64]>,
    close_wait: usize,
    reset: usize,
    members: usize,
    /// How many of them somebody waits at.
    deep: usize,
    oldest_stays: bool,
    /// By how much the queues fell, those who came meanwhile counted in.
    left: i64,
}

impl Group {
    fn of(address: SocketAddr, [first, before_last, last]: [&Look; 3]) -> Self {
        let before: Vec<&Waiting> = first.at(address).filter(|one| one.is_unowned()).collect();
        let (after, accepted): (Vec<&Waiting>, Vec<&Waiting>) =
            last.at(address).partition(|one| one.is_unowned());
        let known: HashSet<[u8; 8]> = before.iter().map(|waiting| waiting.cookie).collect();
        let arrived = after.iter().filter(|waiting| !known.contains(&waiting.cookie)).count();
        // The connections were listed between these two looks: who has come since is not taken for reset.
        let queued = before_last.depth(address).min(last.depth(address));
        let mut waiting: Vec<Waiting> = after.iter().map(|waiting| (*waiting).clone()).collect();
        waiting.sort_by_key(|waiting| Reverse(waiting.age));
        Self {
            close_wait: waiting.iter().filter(|waiting| waiting.close_wait).count(),
            reset: usize::try_from(queued).unwrap_or(0).saturating_sub(waiting.len()),
            members: last.group(address).count(),
            deep: last.group(address).filter(|member| member.queued > 0).count(),
            oldest_stays: oldest_stays(&before, &after),
            left: first.depth(address) + i64::try_from(arrived).unwrap_or(i64::MAX) - last.depth(address),
            accepted: accepted.iter().map(|connection| connection.inode).collect(),
            waiting: waiting.into(),
        }
    }

    fn queue_of(&self, seen: &[&Listener]) -> Queue {
        let fell = seen.windows(2).any(|pair| pair[1].queued < pair[0].queued);
        let taken = match self.members {
            1 => !self.oldest_stays && (fell || self.left > 0),
            // Of several members only a queue that fell is known to have been taken from.
            _ => fell,
        };
        let is_deep = seen.last().is_some_and(|last| last.queued > 0);
        let others_wait = self.deep > usize::from(is_deep);
        let shared = self.members > 1 && others_wait;
        let nobody = shared && !is_deep;
        Queue {
            taken: Some(taken),
            close_wait: Some(if nobody { 0 } else { self.close_wait }),
            dead: Some(if nobody { 0 } else { self.close_wait + self.reset }),
            shared: shared && is_deep,
            accepted: Rc::clone(&self.accepted),
            waiting: Some(if nobody { Rc::default() } else { Rc::clone(&self.waiting) }),
        }
    }
}

/// First in, first out: while the oldest is there, nothing was taken.
fn oldest_stays(before: &[&Waiting], after: &[&Waiting]) -> bool {
    let Some(age) = before.iter().map(|waiting| waiting.age).max() else { return false };
    let mut oldest = before.iter().filter(|waiting| waiting.age == age);
    oldest.all(|waiting| after.iter().any(|other| other.cookie == waiting.cookie))
}

impl Look {
    fn find(&self, listener: &Listener) -> Option<&Listener> {
        self.listeners.iter().find(|other| other.cookie == listener.cookie)
    }

    fn group(&self, address: SocketAddr) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(move |other| other.socket() == Some(address))
    }

    /// How many wait at all of them together.
    fn depth(&self, address: SocketAddr) -> i64 {
        self.group(address).map(|member| i64::from(member.queued)).sum()
    }

    /// The connections that came by this address.
    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &Waiting> {
        let others = specific(self.listeners.iter().chain(&self.others));
        self.connections.iter().flatten().filter(move |waiting| waiting.came_by(address, &others))
    }
}

#[cfg(test)]
mod tests {
    use super::is_shifted;

    #[test]
    fn a_unix_queue_that_grows_or_dies_was_not_taken_from() {
        assert!(!is_shifted(&[], &[]));
        assert!(!is_shifted(&[], &[1]));
        assert!(!is_shifted(&[1, 2], &[1, 2, 3]));
        assert!(!is_shifted(&[1, 2], &[0, 2]));
        assert!(!is_shifted(&[0, 0], &[0, 0, 7]));
    }

    #[test]
    fn a_unix_queue_that_loses_its_head_was_taken_from() {
        assert!(is_shifted(&[1], &[]));
        assert!(is_shifted(&[1, 2], &[2]));
        assert!(is_shifted(&[1, 2], &[2, 3]));
        assert!(is_shifted(&[0, 2], &[2, 3]));
    }
}
