//! What was seen so far, and the rates that follow from it. Pure: the time comes with the facts.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::see::{Counters, Listener};

/// More than the widest terminal shows.
const KEPT: usize = 1024;

/// Everything that one look brought.
#[derive(Debug)]
pub(crate) struct Moment {
    /// Since the first one.
    pub(crate) at: Duration,
    pub(crate) listeners: Vec<Listener>,
    /// All listeners of the namespace, also those that were not asked for: TCP's counters know no difference.
    pub(crate) queued_tcp: u64,
    pub(crate) counters: Counters,
    /// By listener: connections in CLOSE_WAIT that no process has. Unix: clients that have gone, where the kernel
    /// lists them.
    pub(crate) dead: HashMap<[u8; 8], usize>,
    /// By listener, where it was asked for.
    pub(crate) oldest: HashMap<[u8; 8], Duration>,
}

impl Moment {
    /// The listener with the longest queue; the first of several.
    pub(crate) fn deepest(&self) -> Option<[u8; 8]> {
        let deepest = self.listeners.iter().rev().max_by_key(|listener| listener.queued);
        deepest.map(|listener| listener.cookie)
    }

    /// Where this listener stands; at the top if it has gone.
    pub(crate) fn position(&self, cookie: Option<[u8; 8]>) -> usize {
        self.listeners.iter().position(|listener| Some(listener.cookie) == cookie).unwrap_or(0)
    }
}

/// The past, as far as the screen shows it.
#[derive(Debug, Default)]
pub(crate) struct History {
    depths: HashMap<[u8; 8], VecDeque<u32>>,
    before: Option<Moment>,
    now: Option<Moment>,
}

/// In a second; `None` before there are two looks, or where the kernel does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) arrivals: Option<f64>,
    pub(crate) accepts: Option<f64>,
    pub(crate) overflows: Option<f64>,
}

impl History {
    pub(crate) fn add(&mut self, moment: Moment) {
        self.depths.retain(|cookie, _| moment.listeners.iter().any(|listener| listener.cookie == *cookie));
        for listener in &moment.listeners {
            let depths = self.depths.entry(listener.cookie).or_default();
            if depths.len() == KEPT {
                depths.pop_front();
            }
            depths.push_back(listener.queued);
        }
        self.before = self.now.replace(moment);
    }

    pub(crate) fn now(&self) -> Option<&Moment> {
        self.now.as_ref()
    }

    /// Who stands there now.
    pub(crate) fn cookie(&self, position: usize) -> Option<[u8; 8]> {
        Some(self.now.as_ref()?.listeners.get(position)?.cookie)
    }

    /// The newest last.
    pub(crate) fn depths(&self, listener: &Listener) -> Vec<u32> {
        self.depths.get(&listener.cookie).map(|depths| depths.iter().copied().collect()).unwrap_or_default()
    }

    /// Connections dropped at this socket in a second.
    pub(crate) fn drops_per_second(&self, listener: &Listener) -> Option<f64> {
        let before = self.before.as_ref()?;
        let then = before.listeners.iter().find(|other| other.cookie == listener.cookie)?;
        per_second(listener.drops?.wrapping_sub(then.drops?).into(), self.interval()?)
    }

    /// Those of all TCP listeners of the namespace together.
    pub(crate) fn rates(&self) -> Rates {
        let (Some(before), Some(now), Some(interval)) = (&self.before, &self.now, self.interval()) else {
            return Rates::default();
        };
        let grown = |field: fn(&Counters) -> Option<u64>| {
            Some(field(&now.counters)?.saturating_sub(field(&before.counters)?))
        };
        let arrivals = grown(|counters| counters.passive_opens);
        // Whoever has arrived and does not wait was accepted, or was reset with a listener that closed.
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

#[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
fn per_second(count: u64, interval: Duration) -> Option<f64> {
    (!interval.is_zero()).then(|| count as f64 / interval.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::see::{Address, Kind};

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

    pub(in crate::watch) fn moment(seconds: u64, listeners: Vec<Listener>, opens: u64) -> Moment {
        let queued_tcp = listeners.iter().map(|listener| u64::from(listener.queued)).sum();
        Moment {
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
    fn who_arrived_and_does_not_wait_was_accepted() {
        let mut history = History::default();
        history.add(moment(0, vec![listener(1, 4)], 100));
        assert_eq!(history.rates(), Rates::default());
        history.add(moment(2, vec![listener(1, 10)], 120));
        let rates = history.rates();
        assert_eq!(rates.arrivals, Some(10.0));
        assert_eq!(rates.accepts, Some(7.0));
        assert_eq!(rates.overflows, Some(3.0));
        assert_eq!(history.drops_per_second(&listener(1, 10)), Some(1.5));
        assert_eq!(history.depths(&listener(1, 0)), [4, 10]);
    }

    #[test]
    fn a_listener_that_closed_is_forgotten() {
        let mut history = History::default();
        history.add(moment(0, vec![listener(1, 4), listener(2, 4)], 0));
        history.add(moment(1, vec![listener(2, 4)], 0));
        assert!(history.depths(&listener(1, 0)).is_empty());
        assert_eq!(history.depths(&listener(2, 0)), [4, 4]);
        assert_eq!(history.drops_per_second(&listener(3, 0)), None);
    }
}
