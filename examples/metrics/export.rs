//! Counters in the OpenMetrics text format, by the crate `prometheus-client`.

use std::fmt;
use std::net::TcpListener;

use epoll_acceptor::acceptor::Histogram;
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Control, Counters, Gate, QueueDelay, State};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Read at every scrape, from any thread.
#[derive(Debug)]
pub(crate) struct Exporter(Registry);

/// What is read.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) control: Control,
    pub(crate) gate: Gate,
    pub(crate) delay: QueueDelay,
    /// A duplicate, to read the length of the accept queue.
    pub(crate) listener: TcpListener,
}

/// Counters of which each cause or resource becomes a label: the prefix of their names, the label, and the help.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("refused", "cause", "Connections accepted and refused, by cause."),
    ("exhausted", "resource", "Attempts that failed because a resource ran out, by resource."),
];

const STATES: [State; 7] = [
    State::Listening,
    State::Throttled,
    State::Exhausted,
    State::Full,
    State::Paused,
    State::Stopped,
    State::Closed,
];

impl Exporter {
    pub(crate) fn new(sources: Sources) -> Self {
        let mut registry = Registry::with_prefix("acceptor");
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.control.counters();
        encode_counters(&mut encoder, &counters)?;
        encode_times(&mut encoder, &counters)?;
        self.encode_gauges(&mut encoder)?;
        #[expect(clippy::cast_precision_loss, reason = "fewer connections than 2^53")]
        let accepted = (counters.delivered + counters.refused + counters.aborted) as f64;
        let help = "Connections accepted in one pass.";
        encode_histogram(&mut encoder, ("per_pass", help), &counters.per_pass, 1.0, accepted)?;
        let queue_times = self.delay.queue_times();
        // The filter counts by powers of two; the sum is that of the lower bounds.
        #[expect(clippy::cast_precision_loss, reason = "fewer connections than 2^53")]
        let sum = queue_times.iter().map(|(from, count)| f64::from(from) * count as f64 / 1e3).sum();
        let help = "Time of connections in the accept queue, at least.";
        encode_histogram(&mut encoder, ("queue_seconds", help), &queue_times, 1e3, sum)
    }
}

fn encode_counters(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    for (prefix, label, help) in FAMILIES {
        let mut family = encoder.encode_descriptor(prefix, help, None, MetricType::Counter)?;
        for (name, value) in counters.iter() {
            if let Some(value_of_label) = name.strip_prefix(prefix).and_then(|name| name.strip_prefix('_')) {
                ConstCounter::new(value).encode(family.encode_family(&[(label, value_of_label)])?)?;
            }
        }
    }
    let others =
        counters.iter().filter(|(name, _)| !FAMILIES.iter().any(|(prefix, ..)| name.starts_with(prefix)));
    for (name, value) in others {
        let help = format!("The counter `{name}` of epoll_acceptor::Counters.");
        ConstCounter::new(value).encode(encoder.encode_descriptor(
            name,
            &help,
            None,
            MetricType::Counter,
        )?)?;
    }
    Ok(())
}

fn encode_times(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    let help = "Time that the acceptor has been in each state.";
    let mut family = encoder.encode_descriptor("state", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for state in STATES {
        let time = ConstCounter::new(counters.time_in(state).as_secs_f64());
        time.encode(family.encode_family(&[("state", state.to_string())])?)?;
    }
    Ok(())
}

impl Sources {
    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: i64| {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)
        };
        gauge("in_service", "Permits in use.", self.gate.in_use().into())?;
        gauge("limit", "Limit of the gate.", self.gate.limit().into())?;
        gauge("waiters", "1 if an acceptor waits for a permit.", self.gate.has_waiters().into())?;
        let listening = self.control.state() == State::Listening;
        gauge("listening", "1 if the listener is armed.", listening.into())?;
        if let Ok(queue) = accept_queue(&self.listener) {
            gauge("queued", "Connections in the accept queue.", queue.depth.into())?;
            gauge("backlog", "Capacity of the accept queue.", queue.backlog.into())?;
        }
        Ok(())
    }
}

/// Encodes a histogram whose numbers are divided by `scale`.
fn encode_histogram(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    histogram: &Histogram,
    scale: f64,
    sum: f64,
) -> fmt::Result {
    /// Where the last bucket but one ends.
    const MAX: f64 = 16_383.0;
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for (from, count) in histogram.iter() {
        // A bucket ends before the next one begins.
        let to = if from == 0 { 0.0 } else { 2.0 * f64::from(from) - 1.0 };
        let to = if to > MAX { f64::INFINITY } else { to / scale };
        match buckets.last_mut() {
            Some((last, counted)) if *last >= to => *counted += count,
            _ => buckets.push((to, count)),
        }
    }
    let count = histogram.iter().map(|(_, count)| count).sum();
    let mut encoded = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    encoded.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
