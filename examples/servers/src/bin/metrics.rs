//! axum with the counters of its acceptor for Prometheus: refusals by cause, exhaustion by resource, the time in each state,
//! permits, the accept queue, and histograms of the passes and of the time in the queue.
//!
//! ```text
//! cargo run --release -p servers --bin metrics -- --listen 127.0.0.1:8080 --metrics 127.0.0.1:9100 --limit 100
//! curl http://127.0.0.1:9100/metrics
//! ```
//!
//! Two permits are reserved for the metrics, so that a full server still serves them.

use std::error::Error;
use std::fmt::{Error as FormatError, Result as Encoded};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, routing::get};
use epoll_acceptor::acceptor::Histogram;
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Control, Gate, LevelTriggered, QueueDelay, Refusal, State, WhenFull};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use servers::{listener, options};
use tokio::signal::unix::{SignalKind, signal};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// While the server is overloaded, connections that were queued for longer are refused: their clients have given up.
const QUEUE_DELAY: Duration = Duration::from_secs(10);
const STATES: [State; 7] = [
    State::Listening,
    State::Throttled,
    State::Exhausted,
    State::Full,
    State::Paused,
    State::Stopped,
    State::Closed,
];

/// What is read at every scrape.
#[derive(Debug)]
struct Sources {
    control: Control,
    gate: Gate,
    delay: QueueDelay,
    /// A duplicate, to read the length of the accept queue.
    listener: TcpListener,
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let counters = self.control.counters();
        // Each cause of a refusal, and each resource that ran out, becomes a label.
        for (family, label) in [("refused", "cause"), ("exhausted", "resource")] {
            let mut encoder = encoder.encode_descriptor(family, "Connections.", None, MetricType::Counter)?;
            for (name, value) in counters.iter() {
                if let Some(of) = name.strip_prefix(family).and_then(|name| name.strip_prefix('_')) {
                    ConstCounter::new(value).encode(encoder.encode_family(&[(label, of)])?)?;
                }
            }
        }
        for (name, value) in counters.iter() {
            if !name.starts_with("refused") && !name.starts_with("exhausted") {
                let help = "See epoll_acceptor::Counters.";
                let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                ConstCounter::new(value).encode(encoder)?;
            }
        }
        let help = "Time in each state.";
        let mut times =
            encoder.encode_descriptor("state", help, Some(&Unit::Seconds), MetricType::Counter)?;
        for state in STATES {
            let time = ConstCounter::new(counters.time_in(state).as_secs_f64());
            time.encode(times.encode_family(&[("state", state.to_string())])?)?;
        }
        let queue = accept_queue(&self.listener).map_err(|_| FormatError)?;
        let listening = self.control.state() == State::Listening;
        for (name, help, value) in [
            ("in_service", "Permits in use.", self.gate.in_use()),
            ("limit", "Limit of the gate.", self.gate.limit()),
            ("waiters", "1 if an acceptor waits for a permit.", self.gate.has_waiters().into()),
            ("listening", "1 if the listener is armed.", listening.into()),
            ("queued", "Connections in the accept queue.", queue.depth),
            ("backlog", "Capacity of the accept queue.", queue.backlog),
        ] {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::from(value)).encode(encoder)?;
        }
        let accepted = counters.delivered + counters.refused + counters.aborted;
        histogram(&mut encoder, "per_pass", &counters.per_pass, accepted, 1.0)?;
        let queue_times = self.delay.queue_times();
        // The filter counts by powers of two: the sum is that of the lower bounds.
        let milliseconds = queue_times.iter().map(|(from, count)| u64::from(from) * count).sum();
        histogram(&mut encoder, "queue_seconds", &queue_times, milliseconds, 1e3)
    }
}

/// Encodes a histogram whose numbers are divided by `scale`.
#[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    of: &Histogram,
    sum: u64,
    scale: f64,
) -> Encoded {
    // A bucket ends before the next one begins, and the last one never.
    let ends = of.iter().skip(1).map(|(from, _)| f64::from(from - 1) / scale).chain([f64::INFINITY]);
    let buckets: Vec<_> = ends.zip(of.iter().map(|(_, count)| count)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let mut encoder = encoder.encode_descriptor(name, "By powers of two.", None, MetricType::Histogram)?;
    encoder.encode_histogram::<NoLabelSet>(sum as f64 / scale, count, &buckets, None)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::builder(options.limit.saturating_add(2)).reserved(2).build();
    let (listener, pending) = listener(&options)?;
    let (copy, delay) = (listener.try_clone()?, QueueDelay::new(QUEUE_DELAY));
    let busy = gate.with_when_full(WhenFull::Shed(Refusal::message(BUSY)));
    let builder = options.trigger.on(listener).backlog(4_096).gate(&busy);
    let acceptor = builder.filter(delay.clone()).build_tokio()?;
    let metrics = TcpListener::bind(options.metrics)?;
    let metrics = LevelTriggered::on(metrics).gate(&gate.privileged()).build_tokio()?;
    let (control, mut terminate) = (acceptor.control(), signal(SignalKind::terminate())?);
    println!("metrics on {}", metrics.listener().local_addr()?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    let mut registry = Registry::with_prefix("acceptor");
    registry.register_collector(Box::new(Sources { control: control.clone(), gate, delay, listener: copy }));
    let registry = Arc::new(registry);
    let scrape = async move || {
        let mut body = String::new();
        let encoded = text::encode(&mut body, &registry);
        let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
        encoded.map(|()| (kind, body)).map_err(|error| error.to_string())
    };
    tokio::spawn(async move { axum::serve(metrics, Router::new().route("/metrics", get(scrape))).await });
    let signal = async move {
        let _ = terminate.recv().await;
    };
    let ended = acceptor.end_on(signal, pending, options.within);
    let app = Router::new().route("/", get(async || "hello\n"));
    axum::serve(acceptor, app).with_graceful_shutdown(ended).await?;
    println!("{}, {:?}", control.counters(), control.shutdown_report());
    Ok(())
}
