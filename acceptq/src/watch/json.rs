//! The output of `watch --json`: one line per sample, with the names of `doctor --json`. Pure.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::history::{History, Snapshot};
use crate::doctor::{SCHEMA, ms, round};
use crate::probe::Listener;

/// Formats the last sample. What is not visible, or not known before the second sample, is null.
pub(crate) fn line(history: &History) -> String {
    let Some(now) = history.now() else { return String::new() };
    let rates = history.rates();
    let listeners: Vec<Value> = now.listeners.iter().map(|listener| one(history, now, listener)).collect();
    let all = json!({
        "schema": SCHEMA,
        "at_ms": ms(now.at),
        "listeners": listeners,
        "arrivals_per_second": rates.arrivals.map(round),
        "accepts_per_second": rates.accepts.map(round),
        "overflows_per_second": rates.overflows.map(round),
        "listen_overflows": now.counters.listen_overflows,
        "listen_drops": now.counters.listen_drops,
    });
    format!("{all}\n")
}

fn one(history: &History, now: &Snapshot, listener: &Listener) -> Value {
    json!({
        "kind": listener.kind,
        "address": listener.address,
        "inode": listener.inode,
        "queued": listener.queued,
        "backlog": listener.backlog,
        "capacity": listener.capacity(),
        "drops": listener.drops,
        "drops_per_second": history.drops_per_second(listener).map(round),
        "dead": now.dead.get(&listener.cookie),
        "oldest_wait_ms": now.oldest.get(&listener.cookie).map(|age| ms(*age)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::{listener, snapshot};
    use super::*;

    #[test]
    fn rates_appear_with_the_second_sample() {
        let mut history = History::default();
        history.add(snapshot(0, vec![listener(1, 4)], 100));
        let first: Value = serde_json::from_str(&line(&history)).expect("JSON");
        assert_eq!(
            (&first["schema"], &first["accepts_per_second"]),
            (&SCHEMA.into(), &Value::Null),
            "{first}"
        );
        assert_eq!(first["listeners"][0]["queued"], 4, "{first}");
        history.add(snapshot(2, vec![listener(1, 10)], 120));
        let second: Value = serde_json::from_str(&line(&history)).expect("JSON");
        assert_eq!(
            (&second["at_ms"], &second["accepts_per_second"]),
            (&2000.into(), &7.0.into()),
            "{second}"
        );
        assert_eq!(second["listeners"][0]["drops_per_second"], 1.5, "{second}");
        assert_eq!(line(&history).matches('\n').count(), 1);
    }
}
