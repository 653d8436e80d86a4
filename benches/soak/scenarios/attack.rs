//! One address floods at full speed, and a hundred other clients connect once a second each.

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use epoll_acceptor::{Epoll, EpollAcceptor, Filter, Gate, PeerLimit, Refusal, Token, Trigger, WhenFull};
use serde_json::json;

use crate::harness::{End, Harness, Outcome, Scenario, ScenarioResult, UnderTest, permille};
use crate::request::{Behavior, Leave, Request, Stats};
use crate::server::{Server, Service, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "attack",
    about: "one address floods, a hundred regular ones come too",
    share: 4.0,
    least: 2.0,
    run,
};

const LIMIT: u32 = 200;
/// Connections per address.
const EACH: u32 = 8;
/// How many connections the flood keeps open or opens.
const FLOOD: usize = 800;
const REGULAR: u32 = 100;
/// Refusals per second, and their burst.
const REFUSALS: (u32, u32) = (20_000, 200);
/// In milliseconds. A client that retransmits its SYN waits for a second at least.
const BOUND: f64 = 900.0;

/// With a limit per peer, only the flood is refused. Before that, for comparison, the gate alone.
fn run(harness: &mut Harness) -> ScenarioResult {
    let whole = harness.time;
    harness.time = whole.mul_f64(0.3);
    let gate = Gate::builder(LIMIT).when_full(WhenFull::Shed(Refusal::Reset)).build();
    let (without, regular_without, _) = flood_and_serve(harness, &gate, ())?;

    harness.time = whole.mul_f64(0.7);
    let gate = Gate::builder(LIMIT).when_full(WhenFull::Shed(Refusal::Reset)).build();
    let (mut outcome, regular, flood) = flood_and_serve(harness, &gate, PeerLimit::new(EACH))?;
    for broken in without.broken {
        outcome.broken.push(format!("without a limit per peer: {broken}"));
    }
    let waits: &mut Vec<f64> = &mut regular.waits.iter().map(|(_, wait)| *wait).collect();
    let p99 = permille(waits, 990);
    outcome
        .check(regular.answered == regular.connected && regular.failed == 0, "all other clients are served");
    outcome.check(
        p99 <= BOUND,
        &format!("99 of 100 other clients are served within {BOUND} ms (p99: {p99:.1} ms)"),
    );
    outcome.add("polite", regular.connected);
    outcome.add("polite_served", regular.answered);
    outcome.add("wait_ms", json!({ "p50": permille(waits, 500), "p99": p99, "max": permille(waits, 1000) }));
    outcome.add("flood_per_second", (flood.connected as f64 / harness.seconds()).round());
    outcome.add("flood_refused", flood.refused);
    let without = json!({ "polite": regular_without.connected, "polite_served": regular_without.answered });
    outcome.add("with_the_gate_alone", without);
    Ok(End::Done(Box::new(outcome)))
}

/// Returns the outcome, and the results of the other clients and of the flood.
fn flood_and_serve<F>(
    harness: &mut Harness,
    gate: &Gate,
    filter: F,
) -> Result<(Outcome, Stats, Stats), Box<dyn Error>>
where
    F: Filter<Permit: Send> + 'static,
{
    let server = Server::start(listen(4096, 0)?, Service::Answer, shedding(harness.trigger, gate, filter))?;
    let flood = Request {
        from: (Ipv4Addr::LOCALHOST, 1),
        leave: Leave::Resetting,
        gives_up: true,
        // It keeps its connections open.
        ..Request::new(server.address, FLOOD, harness.seconds()).behavior(Behavior::Stay(60_000))
    };
    let flood = harness.send(flood)?;
    // The flood begins first.
    std::thread::sleep(Duration::from_millis(200).min(harness.time / 4));
    let regular = Request {
        from: (Ipv4Addr::new(127, 0, 0, 2), REGULAR),
        per_second: Some(REGULAR.into()),
        waits: true,
        ..Request::new(server.address, 1000, harness.seconds() * 0.7)
    };
    let regular = harness.send_and_wait(regular)?;
    let flood = flood.stats()?;
    let mut stats = regular.clone();
    stats.add(&flood);
    let mut outcome = harness.end(UnderTest::new(server, gate), stats)?;
    outcome.check(flood.refused > 0, "the flood is refused");
    Ok((outcome, regular, flood))
}

fn shedding<F: Filter>(
    trigger: Trigger,
    gate: &Gate,
    filter: F,
) -> impl FnOnce(TcpListener, &Epoll, Token) -> std::io::Result<EpollAcceptor<TcpListener, ((), F)>> {
    move |listener, epoll, token| {
        let builder = trigger.on(listener).gate(gate).filter(filter).refuse_at_most(REFUSALS.0, REFUSALS.1);
        Ok(builder.register(epoll, token)?)
    }
}
