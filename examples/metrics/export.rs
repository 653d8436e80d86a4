//! Counters in Prometheus's text form, by the crate of its authors.

use std::net::TcpListener;

use epoll_acceptor::{Control, Gate, State, accept_queue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Where the last bucket but one ends.
const BUCKET_MAX: f64 = 1023.0;

/// What is read anew for every scrape: from another thread, or as here from the acceptor's own.
#[derive(Debug)]
pub(crate) struct Exporter(Registry);

#[derive(Debug)]
struct Seen {
    control: Control,
    gate: Gate,
    listener: TcpListener,
}

impl Exporter {
    pub(crate) fn new(control: Control, gate: Gate, listener: TcpListener) -> Self {
        let mut registry = Registry::with_prefix("acceptor");
        registry.register_collector(Box::new(Seen { control, gate, listener }));
        Self(registry)
    }

    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = self.control.counters();
        let mut refused = encoder.encode_descriptor(
            "refused",
            "Connections taken and refused, by cause.",
            None,
            MetricType::Counter,
        )?;
        for (name, value) in counters.iter() {
            if let Some(cause) = name.strip_prefix("refused_") {
                ConstCounter::new(value).encode(refused.encode_family(&[("cause", cause)])?)?;
            }
        }
        for (name, value) in counters.iter().filter(|(name, _)| !name.starts_with("refused")) {
            let help = format!("The counter `{name}` of epoll_acceptor::Counters.");
            let counter = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        let mut gauge = |name, help, value: i64| {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)
        };
        gauge("in_service", "Capacity taken.", self.gate.in_use().into())?;
        gauge("limit", "Capacity there are.", self.gate.limit().into())?;
        gauge(
            "open",
            "1 if it listens, 0 if it sleeps or is over.",
            (self.control.state() == State::Listening).into(),
        )?;
        if let Ok(queue) = accept_queue(&self.listener) {
            gauge("queued", "Connections in the accept queue.", queue.depth.into())?;
            gauge("backlog", "How many fit into it.", queue.backlog.into())?;
        }
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for (from, passes) in counters.per_pass.iter() {
            // A bucket ends where the next begins; what is above any sensible budget is one.
            let to = if from == 0 { 0.0 } else { 2.0 * f64::from(from) - 1.0 };
            let to = if to > BUCKET_MAX { f64::INFINITY } else { to };
            match buckets.last_mut() {
                Some((last, more)) if *last >= to => *more += passes,
                _ => buckets.push((to, passes)),
            }
        }
        let passes = counters.per_pass.iter().map(|(_, passes)| passes).sum();
        let taken = counters.delivered + counters.refused + counters.aborted;
        let mut histogram = encoder.encode_descriptor(
            "per_pass",
            "Connections taken from the queue in one pass.",
            None,
            MetricType::Histogram,
        )?;
        #[allow(clippy::cast_precision_loss, reason = "a sum to look at")]
        histogram.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
            taken as f64,
            passes,
            &buckets,
            None,
        )
    }
}
