//! Offered twice what the server can serve: with a bound on the delay in the queue, and without.

use std::error::Error;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use epoll_acceptor::{Admission, Gate, QueueDelay};
use serde_json::{Value, json};

use crate::order::{Leave, Order, Tally};
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Outcome, Played, Scenario, Scene, Stage, permille};

pub(crate) const SCENARIO: Scenario =
    Scenario { name: "overload", about: "offered twice what can be served", share: 6.0, least: 4.0, play };

/// So many at once, for so long each: 500 a second.
const LIMIT: u32 = 10;
const SERVICE: Duration = Duration::from_millis(20);
const OFFERED: f64 = 2.0 * LIMIT as f64 / 0.020;
const TARGET: Duration = Duration::from_millis(50);
/// Measured from here on: nobody is refused before the wait has been too long for an interval, four times the target.
const FROM_MS: f64 = 1000.0;
/// The kernel's clock ticks every 10 ms at the slowest, once when a connection is queued and once when it is taken.
const TICKS_MS: f64 = 20.0;
/// The width of the steps in which waits are told over time.
const STEP_MS: f64 = 250.0;

fn play(stage: &mut Stage) -> Played {
    stage.time /= 2;
    let gate = Gate::new(LIMIT);
    let (pausing, pausing_tally, _) = offer(stage, &gate, gate.clone())?;
    let gate = Gate::new(LIMIT);
    let (mut outcome, tally, queued) = offer(stage, &gate, gate.clone().and(QueueDelay::new(TARGET)))?;

    for broken in pausing.broken {
        outcome.broken.push(format!("without a bound on the delay: {broken}"));
    }
    let target = TARGET.as_secs_f64() * 1e3;
    let bound = 2.0 * target + TICKS_MS;
    let within = steps_within(&queued, bound);
    let queued = &mut since(&queued, FROM_MS);
    outcome.check(tally.refused > 0 && !queued.is_empty(), "it was overloaded");
    outcome.check(within > 0.5, &format!("in most steps 99 of 100 are queued no longer than {bound} ms"));
    let waits = &mut waits(&tally);
    outcome.tell("target_ms", target);
    outcome.tell("offered_per_second", OFFERED);
    outcome.tell("served_per_second", per_second(&tally));
    outcome.tell("queued_ms", percentiles(queued));
    outcome.tell("steps_within_bound", within);
    outcome.tell("wait_ms", percentiles(waits));
    outcome.tell("over_time", over_time(&tally));
    let waits = &mut self::waits(&pausing_tally);
    outcome.tell(
        "pausing",
        json!({
            "served_per_second": per_second(&pausing_tally),
            "wait_ms": percentiles(waits),
            "over_time": over_time(&pausing_tally),
        }),
    );
    Ok(End::Played(Box::new(outcome)))
}

/// When, and how long; in milliseconds.
type Waits = Vec<(f64, f64)>;

fn offer<A>(stage: &mut Stage, gate: &Gate, policy: A) -> Result<(Outcome, Tally, Waits), Box<dyn Error>>
where
    A: Admission<Permit: Send> + 'static,
{
    let server = Server::start(listen(4096, 0)?, Service::Takes(SERVICE), build(stage.trigger, policy))?;
    let order = Order {
        per_second: Some(OFFERED),
        waits: true,
        gives_up: true,
        leave: Leave::Closing,
        ..Order::new(server.address, stage.most as usize, stage.seconds())
    };
    let tally = stage.send_and_wait(order)?;
    // Those who gave up are still queued.
    server.hurry();
    let books = Arc::clone(&server.books);
    let outcome = stage.end(Scene::new(server, gate), tally.clone())?;
    let queued = std::mem::take(&mut *books.queued.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((outcome, tally, queued))
}

/// How long those waited for their turn who were served after the first second, in milliseconds.
fn waits(tally: &Tally) -> Vec<f64> {
    since(&tally.waits, FROM_MS).into_iter().map(turn).collect()
}

fn since(waits: &[(f64, f64)], from: f64) -> Vec<f64> {
    waits.iter().filter(|(when, _)| *when >= from).map(|(_, wait)| *wait).collect()
}

/// Without the service itself.
fn turn(wait: f64) -> f64 {
    (wait - SERVICE.as_secs_f64() * 1e3).max(0.0)
}

/// In which part of the steps 99 of 100 were queued no longer than this.
///
/// Not of all together: on a busy machine the clients stall at times. Then the queue runs empty, and the burst with which
/// they catch up is let through for an interval, as any burst is.
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

fn per_second(tally: &Tally) -> f64 {
    let last = tally.waits.last().map_or(1.0, |(when, _)| *when);
    (tally.answered as f64 * 1e3 / last).round()
}

fn percentiles(waits: &mut [f64]) -> Value {
    json!({ "p50": permille(waits, 500), "p99": permille(waits, 990), "max": permille(waits, 1000) })
}

/// For each step: its begin in seconds, how many were served, and the wait of half and of 99 of 100 of them.
fn over_time(tally: &Tally) -> Value {
    let mut steps = Vec::new();
    let mut served = tally.waits.iter().peekable();
    let mut step = 0.0;
    while served.peek().is_some() {
        let mut waits = Vec::new();
        while let Some((_, wait)) = served.next_if(|(when, _)| *when < step + STEP_MS) {
            waits.push(turn(*wait));
        }
        let (p50, p99) = (permille(&mut waits, 500), permille(&mut waits, 990));
        steps.push(json!([step / 1e3, waits.len(), p50, p99]));
        step += STEP_MS;
    }
    steps.into()
}
