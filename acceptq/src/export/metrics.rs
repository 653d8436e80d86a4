//! The metrics, in the text format of Prometheus, version 0.0.4: node_exporter does not read OpenMetrics. Pure.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::doctor::Inspection;
use crate::doctor::collect::Collected;
use crate::doctor::diagnose::Verdict;

/// The listeners on one address: several with `SO_REUSEPORT`.
#[derive(Debug)]
struct Group {
    queued: u64,
    capacity: u64,
    drops: Option<u64>,
    dead: Option<usize>,
    oldest: Option<Duration>,
    accepts: Option<f64>,
    verdict: Verdict,
}

impl Group {
    fn of((inspection, verdict): (&Inspection, Verdict)) -> Self {
        let (listener, facts) = (&inspection.listener, &inspection.facts);
        let is_empty = listener.queued == 0 && !listener.kind.is_unix();
        Self {
            queued: listener.queued.into(),
            capacity: listener.capacity().into(),
            drops: listener.drops.map(u64::from),
            dead: inspection.dead,
            oldest: facts.oldest_wait.or(is_empty.then_some(Duration::ZERO)),
            accepts: facts.accept_rate,
            verdict,
        }
    }

    /// Adds another listener. `shared` figures cover all listeners on the address already.
    fn add(&mut self, other: &Self, shared: bool) {
        self.queued += other.queued;
        self.capacity += other.capacity;
        self.drops = self.drops.zip(other.drops).map(|(one, other)| one + other);
        self.oldest = self.oldest.max(other.oldest);
        self.accepts = self.accepts.zip(other.accepts).map(|(one, other)| one + other);
        self.verdict = self.verdict.max(other.verdict);
        if !shared {
            self.dead = self.dead.zip(other.dead).map(|(one, other)| one + other);
        }
    }
}

/// Formats the metrics. `listening` has the number of listeners at each target that was named.
pub(super) fn text(
    diagnoses: &[(&Inspection, Verdict)],
    listening: &[(String, usize)],
    collected: &Collected,
) -> String {
    let mut groups: BTreeMap<(&str, String), Group> = BTreeMap::new();
    for (inspection, verdict) in diagnoses {
        let listener = &inspection.listener;
        let one = Group::of((inspection, *verdict));
        let name = (listener.kind.name(), listener.address.to_string());
        groups.entry(name).and_modify(|group| group.add(&one, inspection.shared)).or_insert(one);
    }
    let labeled: Vec<(String, &Group)> = groups
        .iter()
        .map(|((kind, address), group)| (labels(&[("kind", kind), ("address", address)]), group))
        .collect();
    let mut out = queues(&labeled);
    out.push_str(&verdicts(&labeled));
    out.push_str(&totals(listening, collected));
    out
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
fn queues(groups: &[(String, &Group)]) -> String {
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, value: fn(&Group) -> Option<f64>| {
        let series = groups.iter().filter_map(|(labels, group)| Some((labels.clone(), value(group)?)));
        family(&mut out, name, help, series);
    };
    gauge("queue_length", "Connections in the accept queue.", |one| Some(one.queued as f64));
    gauge("queue_capacity", "Connections that the accept queue holds: the backlog plus one.", |one| {
        Some(one.capacity as f64)
    });
    gauge("queue_dead_connections", "Queued connections that the client has closed or reset.", |one| {
        Some(one.dead? as f64)
    });
    gauge("queue_oldest_wait_seconds", "Age of the oldest queued connection, 0 if none; TCP only.", |one| {
        Some(one.oldest?.as_secs_f64())
    });
    gauge("accepts_per_second", "Connections accepted during the observation, or a lower bound.", |one| {
        one.accepts
    });
    gauge("drops_total", "SYNs and other segments dropped at the listening socket; TCP only.", |one| {
        Some(one.drops? as f64)
    });
    out
}

fn verdicts(groups: &[(String, &Group)]) -> String {
    let mut out = String::new();
    let series = groups.iter().flat_map(|(labels, group)| {
        let of = move |verdict: Verdict| {
            let name = serde_json::to_value(verdict).unwrap_or_default();
            let name = name.as_str().unwrap_or_default().to_string();
            (format!("{labels},verdict=\"{name}\""), f64::from(u8::from(verdict == group.verdict)))
        };
        Verdict::ALL.into_iter().map(of)
    });
    family(&mut out, "verdict", "1 for the verdict of acceptq doctor, 0 for the others.", series);
    out
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
fn totals(listening: &[(String, usize)], collected: &Collected) -> String {
    let mut out = String::new();
    let listeners = listening.iter().map(|(target, count)| (labels(&[("target", target)]), *count as f64));
    family(&mut out, "listeners", "Listening sockets at a target that was named.", listeners);
    let mut total = |name: &str, help: &str, value: Option<u64>| {
        family(&mut out, name, help, value.map(|value| (String::new(), value as f64)).into_iter());
    };
    total(
        "tcp_connections_total",
        "Connections that clients opened to any TCP listener (PassiveOpens).",
        collected.counters.passive_opens,
    );
    total(
        "tcp_overflows_total",
        "Connections dropped at any TCP listener because its queue was full (ListenOverflows).",
        collected.counters.listen_overflows,
    );
    total(
        "hidden_processes",
        "Processes with descriptors that are not visible: run acceptq as root.",
        Some(collected.hidden as u64),
    );
    out
}

/// Appends a metric with its series: labels and value. Without series it is left out.
fn family(out: &mut String, name: &str, help: &str, series: impl Iterator<Item = (String, f64)>) {
    let mut series = series.peekable();
    if series.peek().is_none() {
        return;
    }
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    let _ = writeln!(out, "# HELP acceptq_{name} {help}\n# TYPE acceptq_{name} {kind}");
    for (labels, value) in series {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "acceptq_{name}{labels} {value}");
    }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let one = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
    pairs.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(labels(&[("a", "x"), ("b", "\"\\\n")]), r#"a="x",b="\"\\\n""#);
    }

    #[test]
    fn family_without_series_is_left_out() {
        let mut out = String::new();
        family(&mut out, "a_total", "A.", std::iter::empty());
        assert_eq!(out, "");
        family(&mut out, "a_total", "A.", [("b=\"1\"".into(), 2.5), (String::new(), 3.0)].into_iter());
        assert_eq!(
            out,
            "# HELP acceptq_a_total A.\n# TYPE acceptq_a_total counter\nacceptq_a_total{b=\"1\"} 2.5\nacceptq_a_total 3\n"
        );
    }

    #[test]
    fn listeners_of_an_address_are_added_up() {
        let one = || Group {
            queued: 2,
            capacity: 65,
            drops: Some(1),
            dead: Some(1),
            oldest: Some(Duration::from_secs(3)),
            accepts: None,
            verdict: Verdict::Idle,
        };
        let mut group = one();
        group.add(&Group { verdict: Verdict::Stranded, oldest: None, ..one() }, true);
        assert_eq!((group.queued, group.capacity, group.drops, group.dead), (4, 130, Some(2), Some(1)));
        assert_eq!((group.oldest, group.verdict), (Some(Duration::from_secs(3)), Verdict::Stranded));
        group.add(&one(), false);
        assert_eq!(group.dead, Some(2));
    }
}
