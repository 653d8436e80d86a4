//! What became of the queue between the first look and the last.

use std::collections::HashSet;

use super::gather::Look;
use crate::see::{Address, Listener, Waiting};

/// A listener's queue, as far as it can be told from its siblings'.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Whether anything was taken from it.
    pub(crate) taken: Option<bool>,
    /// The oldest first.
    pub(crate) waiting: Option<Vec<Waiting>>,
    pub(crate) close_wait: Option<usize>,
    pub(crate) dead: Option<usize>,
    pub(crate) shared: bool,
    /// The inodes of the connections to this address that are accepted.
    pub(crate) accepted: Vec<u64>,
}

/// Looks at one listener through all looks; the first and the last list the connections, too.
pub(crate) fn of(listener: &Listener, looks: &[Look]) -> Queue {
    let seen: Vec<&Listener> = looks.iter().filter_map(|look| look.find(listener)).collect();
    match &listener.address {
        Address::Inet(_) => inet(listener, looks, &seen),
        _ => unix(&seen),
    }
}

/// The kernel lists a Unix queue in order, so what is gone from its head was taken.
fn unix(seen: &[&Listener]) -> Queue {
    let steps = seen.windows(2).map(|pair| match (&pair[0].clients, &pair[1].clients) {
        (Some(before), Some(after)) => Some(is_shifted(before, after)),
        // Too many to be listed: what is taken shows, unless as many come.
        _ => (pair[1].queued < pair[0].queued).then_some(true),
    });
    // One step that took is enough to know; that nothing was taken every step has to say.
    let taken = steps.fold(Some(false), |taken, step| match (taken, step) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    });
    let dead = seen.last().and_then(|last| last.gone_clients());
    Queue { taken, dead, ..Queue::default() }
}

/// Whether the second list can only be had from the first by taking from its head.
fn is_shifted(before: &[u32], after: &[u32]) -> bool {
    // A client that has gone shows as zero from then on.
    let same = |(before, after): (&u32, &u32)| before == after || *after == 0;
    after.len() < before.len() || !before.iter().zip(after).all(same)
}

/// TCP tells how many wait at each member of a group, and who waits at the group.
fn inet(listener: &Listener, looks: &[Look], seen: &[&Listener]) -> Queue {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return Queue::default() };
    let before: Vec<&Waiting> = first.waiting_at(listener).collect();
    let after: Vec<&Waiting> = last.waiting_at(listener).collect();
    let members = last.group(listener).count();
    let others_wait = last.group(listener).any(|other| other.cookie != listener.cookie && other.queued > 0);
    let shared = members > 1 && others_wait;
    let depth = |look: &Look| look.group(listener).map(|member| i64::from(member.queued)).sum::<i64>();
    let known: HashSet<[u8; 8]> = before.iter().map(|waiting| waiting.cookie).collect();
    let arrived = after.iter().filter(|waiting| !known.contains(&waiting.cookie)).count();
    let left = depth(first) + i64::try_from(arrived).unwrap_or(i64::MAX) - depth(last);
    let fell = seen.windows(2).any(|pair| pair[1].queued < pair[0].queued);
    let taken = if oldest_stays(&before, &after) && members == 1 {
        false
    } else if members == 1 {
        fell || left > 0
    } else {
        // Of several members only a queue that fell is known to have been taken from.
        fell
    };
    let mut waiting: Vec<Waiting> = after.into_iter().cloned().collect();
    waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.age));
    let is_empty = seen.last().is_some_and(|last| last.queued == 0);
    if shared && is_empty {
        waiting.clear();
    }
    let close_wait = waiting.iter().filter(|waiting| waiting.close_wait).count();
    Queue {
        taken: Some(taken),
        close_wait: Some(close_wait),
        dead: Some(close_wait),
        shared: shared && !is_empty,
        accepted: last.of_address(listener).filter(|c| !c.is_unowned()).map(|c| c.inode).collect(),
        waiting: Some(waiting),
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

    /// The listeners on the same address: with `SO_REUSEPORT` there may be several.
    fn group(&self, listener: &Listener) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|other| other.address == listener.address)
    }

    fn of_address(&self, listener: &Listener) -> impl Iterator<Item = &Waiting> {
        let address = |listener: &Listener| match listener.address {
            Address::Inet(address) => Some(address),
            _ => None,
        };
        let own = address(listener);
        let all: Vec<_> = self.listeners.iter().chain(&self.others).filter_map(address).collect();
        let came_by = move |waiting: &&Waiting| own.is_some_and(|own| waiting.came_by(own, &all));
        self.connections.iter().flatten().filter(came_by)
    }

    fn waiting_at(&self, listener: &Listener) -> impl Iterator<Item = &Waiting> {
        self.of_address(listener).filter(|waiting| waiting.is_unowned())
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
