//! The samples so far, and rates computed from them. Pure: samples carry their time.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::probe::{Counters, Listener};

/// The samples kept for the chart: more than the widest terminal shows.
const MAX_SAMPLES: usize = 1024;

/// The result of one sample.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Time since the first sample.
    pub(crate) at: Duration,
    pub(crate) listeners: Vec<Listener>,
    /// Connections queued at all TCP listeners of the namespace, because the counters include all of them.
    pub(crate) queued_tcp: u64,
    pub(crate) counters: Counters,
    /// By listener: queued connections that the client has closed, where the kernel lists them.
    pub(crate) dead: HashMap<[u8; 8], usize>,
    /// By listener: the longest time in the queue, if a port is watched.
    pub(crate) oldest: HashMap<[u8; 8], Duration>,
}

impl Snapshot {
    /// Returns the first listener with the longest queue.
    pub(crate) fn deepest(&self) -> Option<[u8; 8]> {
        let deepest = self.listeners.iter().rev().max_by_key(|listener| listener.queued);
        deepest.map(|listener| listener.cookie)
    }

    /// Returns the position of a listener, or 0 if it has closed.
    pub(crate) fn position(&self, cookie: Option<[u8; 8]>) -> usize {
        self.listeners.iter().position(|listener| Some(listener.cookie) == cookie).unwrap_or(0)
    }
}

/// The samples that the screen shows.
#[derive(Debug, Default)]
pub(crate) struct History {
    depths: HashMap<[u8; 8], VecDeque<u32>>,
    before: Option<Snapshot>,
    now: Option<Snapshot>,
}

/// Rates per second; `None` before the second sample, or if the kernel has no counter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) arrivals: Option<f64>,
    pub(crate) accepts: Option<f64>,
    pub(crate) overflows: Option<f64>,
}

impl History {
    pub(crate) fn add(&mut self, snapshot: Snapshot) {
        self.depths.retain(|cookie, _| snapshot.listeners.iter().any(|listener| listener.cookie == *cookie));
        for listener in &snapshot.listeners {
            let depths = self.depths.entry(listener.cookie).or_default();
            if depths.len() == MAX_SAMPLES {
                depths.pop_front();
            }
            depths.push_back(listener.queued);
        }
        self.before = self.now.replace(snapshot);
    }

    pub(crate) fn now(&self) -> Option<&Snapshot> {
        self.now.as_ref()
    }

    pub(crate) fn cookie(&self, position: usize) -> Option<[u8; 8]> {
        Some(self.now.as_ref()?.listeners.get(position)?.cookie)
    }

    /// Returns the queue lengths of a listener, newest last.
    pub(crate) fn depths(&self, listener: &Listener) -> Vec<u32> {
        self.depths.get(&listener.cookie).map(|depths| depths.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns the connections dropped at this socket per second.
    pub(crate) fn drops_per_second(&self, listener: &Listener) -> Option<f64> {
        let before = self.before.as_ref()?;
        let then = before.listeners.iter().find(|other| other.cookie == listener.cookie)?;
        per_second(listener.drops?.wrapping_sub(then.drops?).into(), self.interval()?)
    }

    /// Returns the rates of all TCP listeners of the namespace combined.
    pub(crate) fn rates(&self) -> Rates {
        let (Some(before), Some(now), Some(interval)) = (&self.before, &self.now, self.interval()) else {
            return Rates::default();
        };
        let grown = |field: fn(&Counters) -> Option<u64>| {
            Some(field(&now.counters)?.saturating_sub(field(&before.counters)?))
        };
        let arrivals = grown(|counters| counters.passive_opens);
        // A connection that has arrived and is not queued was accepted, or reset when its listener closed.
        let accepts = arrivals.map(|arrivals| (arrivals + before.queued_tcp).saturating_sub(now.queued_tcp));
        Rates {
            arrivals: arrivals.and_then(|count| per_second(count, interval)),
            accepts: accepts.and_then(|count| per_second(count, interval)),
            overflows: grown(|counters| counters.listen_overflows)
                .and_then(|count| per_second(count, interval)),
        }
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.now.as_ref()?.at.saturating_sub(self.before.as_ref()?.at))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for display")]
fn per_second(count: u64, interval: Duration) -> Option<f64> {
    (!interval.is_zero()).then(|| count as f64 / interval.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::probe::{Address, Kind};

    pub(in crate::watch) fn listener(number: u8, queued: u32) -> Listener {
        Listener {
            kind: Kind::Tcp,
            address: Address::Inet(([127, 0, 0, 1], 8000 + u16::from(number)).into()),
            inode: number.into(),
            cookie: [number; 8],
            uid: Some(0),
            queued,
            backlog: 128,
            drops: Some(queued / 2),
            clients: None,
            is_v6_only: false,
            file: None,
        }
    }

    pub(in crate::watch) fn snapshot(seconds: u64, listeners: Vec<Listener>, opens: u64) -> Snapshot {
        let queued_tcp = listeners.iter().map(|listener| u64::from(listener.queued)).sum();
        Snapshot {
            at: Duration::from_secs(seconds),
            listeners,
            queued_tcp,
            counters: Counters {
                listen_overflows: Some(seconds * 3),
                listen_drops: Some(0),
                passive_opens: Some(opens),
            },
            dead: HashMap::new(),
            oldest: HashMap::new(),
        }
    }

    #[test]
    fn accept_rate_is_arrivals_minus_queue_growth() {
        let mut history = History::default();
        history.add(snapshot(0, vec![listener(1, 4)], 100));
        assert_eq!(history.rates(), Rates::default());
        history.add(snapshot(2, vec![listener(1, 10)], 120));
        let rates = history.rates();
        assert_eq!(rates.arrivals, Some(10.0));
        assert_eq!(rates.accepts, Some(7.0));
        assert_eq!(rates.overflows, Some(3.0));
        assert_eq!(history.drops_per_second(&listener(1, 10)), Some(1.5));
        assert_eq!(history.depths(&listener(1, 0)), [4, 10]);
    }

    #[test]
    fn closed_listener_is_dropped() {
        let mut history = History::default();
        history.add(snapshot(0, vec![listener(1, 4), listener(2, 4)], 0));
        history.add(snapshot(1, vec![listener(2, 4)], 0));
        assert!(history.depths(&listener(1, 0)).is_empty());
        assert_eq!(history.depths(&listener(2, 0)), [4, 4]);
        assert_eq!(history.drops_per_second(&listener(3, 0)), None);
    }
}
