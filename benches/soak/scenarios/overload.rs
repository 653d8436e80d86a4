//! Offers twice the load that the server can serve: with a limit on the queue delay, and without.

use std::error::Error;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use epoll_acceptor::{Filter, Gate, QueueDelay};
use serde_json::{Value, json};

use crate::harness::{End, Harness, Outcome, Scenario, ScenarioResult, UnderTest, permille};
use crate::request::{Leave, Request, Stats};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario =
    Scenario { name: "overload", about: "twice the load that can be served", share: 6.0, least: 4.0, run };

/// 10 connections at once, 20 ms each: 500 per second.
const LIMIT: u32 = 10;
const SERVICE: Duration = Duration::from_millis(20);
const OFFERED: f64 = 2.0 * LIMIT as f64 / 0.020;
/// In a longer test, the clients that wait without a limit on the delay would need more descriptors than a process has.
const LONGEST: Duration = Duration::from_secs(24);
const TARGET: Duration = Duration::from_millis(50);
/// Measured from here on: the filter refuses nothing before the delay has been too long for an interval, which is four
/// times the target.
const FROM_MS: f64 = 1000.0;
/// Two ticks of the slowest kernel clock: one when a connection is queued, one when it is accepted.
const TICKS_MS: f64 = 20.0;
/// The width of the steps of `over_time`.
const STEP_MS: f64 = 250.0;

fn run(harness: &mut Harness) -> ScenarioResult {
    harness.time = harness.time.min(LONGEST) / 2;
    let gate = Gate::new(LIMIT);
    let (unlimited, unlimited_stats, _) = offer(harness, &gate, ())?;
    let gate = Gate::new(LIMIT);
    let (mut outcome, stats, queued) = offer(harness, &gate, QueueDelay::new(TARGET))?;

    for broken in unlimited.broken {
        outcome.broken.push(format!("without a limit on the queue delay: {broken}"));
    }
    let target = TARGET.as_secs_f64() * 1e3;
    let bound = 2.0 * target + TICKS_MS;
    let within = steps_within(&queued, bound);
    let queued = &mut since(&queued, FROM_MS);
    outcome.check(stats.refused > 0 && !queued.is_empty(), "the server is overloaded");
    outcome.check(within > 0.5, &format!("in most steps 99 of 100 are queued for at most {bound} ms"));
    let waits = &mut waits(&stats);
    outcome.add("target_ms", target);
    outcome.add("offered_per_second", OFFERED);
    outcome.add("served_per_second", per_second(&stats));
    outcome.add("queued_ms", percentiles(queued));
    outcome.add("steps_within_bound", within);
    outcome.add("wait_ms", percentiles(waits));
    outcome.add("over_time", over_time(&stats));
    let waits = &mut self::waits(&unlimited_stats);
    outcome.add(
        "pausing",
        json!({
            "served_per_second": per_second(&unlimited_stats),
            "wait_ms": percentiles(waits),
            "over_time": over_time(&unlimited_stats),
        }),
    );
    Ok(End::Done(Box::new(outcome)))
}

/// When, and how long; in milliseconds.
type Waits = Vec<(f64, f64)>;

fn offer<F>(harness: &mut Harness, gate: &Gate, filter: F) -> Result<(Outcome, Stats, Waits), Box<dyn Error>>
where
    F: Filter<Permit: Send> + 'static,
{
    let server =
        Server::start(listen(4096, 0)?, Service::Takes(SERVICE), build(harness.trigger, gate, filter))?;
    let request = Request {
        per_second: Some(OFFERED),
        waits: true,
        gives_up: true,
        leave: Leave::Closing,
        ..Request::new(server.address, harness.most as usize, harness.seconds())
    };
    let stats = harness.send_and_wait(request)?;
    // Connections whose clients gave up are still queued.
    server.finish_quickly();
    let server_stats = Arc::clone(&server.stats);
    let outcome = harness.end(UnderTest::new(server, gate), stats.clone())?;
    let queued = std::mem::take(&mut *server_stats.queued.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((outcome, stats, queued))
}

/// Returns how long the clients served after the first second waited until their service began, in milliseconds.
fn waits(stats: &Stats) -> Vec<f64> {
    since(&stats.waits, FROM_MS).into_iter().map(queueing).collect()
}

fn since(waits: &[(f64, f64)], from: f64) -> Vec<f64> {
    waits.iter().filter(|(when, _)| *when >= from).map(|(_, wait)| *wait).collect()
}

/// Without the service time.
fn queueing(wait: f64) -> f64 {
    (wait - SERVICE.as_secs_f64() * 1e3).max(0.0)
}

/// Returns the fraction of the steps in which 99 of 100 were queued for at most `bound`.
///
/// Per step, because on a busy machine the clients stall at times. Then the queue runs empty, and the burst with which
/// they catch up is admitted for an interval, as any burst is.
fn steps_within(queued: &[(f64, f64)], bound: f64) -> f64 {
    let (mut steps, mut within, mut step) = (0.0, 0.0, FROM_MS);
    let last = queued.last().map_or(0.0, |(when, _)| *when);
    while step < last {
        let mut here = since(queued, step);
        here.truncate(here.len() - since(queued, step + STEP_MS).len());
        if !here.is_empty() {
            steps += 1.0;
            within += f64::from(u8::from(permille(&mut here, 990) <= bound));
        }
        step += STEP_MS;
    }
    if steps > 0.0 { within / steps } else { 0.0 }
}

fn per_second(stats: &Stats) -> f64 {
    let last = stats.waits.last().map_or(1.0, |(when, _)| *when);
    (stats.answered as f64 * 1e3 / last).round()
}

fn percentiles(waits: &mut [f64]) -> Value {
    json!({ "p50": permille(waits, 500), "p99": permille(waits, 990), "max": permille(waits, 1000) })
}

/// For each step: its begin in seconds, how many were served, and the median and p99 of their wait.
fn over_time(stats: &Stats) -> Value {
    let mut steps = Vec::new();
    let mut served = stats.waits.iter().peekable();
    let mut step = 0.0;
    while served.peek().is_some() {
        let mut waits = Vec::new();
        while let Some((_, wait)) = served.next_if(|(when, _)| *when < step + STEP_MS) {
            waits.push(queueing(*wait));
        }
        let (p50, p99) = (permille(&mut waits, 500), permille(&mut waits, 990));
        steps.push(json!([step / 1e3, waits.len(), p50, p99]));
        step += STEP_MS;
    }
    steps.into()
}
