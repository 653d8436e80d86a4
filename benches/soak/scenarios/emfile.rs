//! Descriptors run out and become available again, while clients connect.

use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::Gate;

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::machine::Exhaustion;
use crate::request::{Behavior, Request};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "emfile",
    about: "EMFILE again and again while clients connect",
    share: 1.5,
    least: 0.3,
    run,
};

/// How long descriptors are exhausted, and how long they are not.
const STORM: Duration = Duration::from_millis(40);

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(500);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let request = Request::new(server.address, 400, harness.seconds()).behavior(Behavior::Stay(5));
    let clients = harness.send(request)?;
    let (begun, mut storms) = (Instant::now(), 0u64);
    let any = std::fs::File::open("/dev/null")?;
    while begun.elapsed() < harness.time {
        // Alternately none at all, and only those that other threads close.
        let exhaustion = if storms % 2 == 0 { Exhaustion::complete()? } else { Exhaustion::begin(&any)? };
        thread::sleep(STORM);
        drop(exhaustion);
        thread::sleep(STORM);
        storms += 1;
    }
    drop(any);
    let stats = clients.stats()?;
    let exhausted = server.control.counters().exhausted;
    let passes = server.control.counters().passes;
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    outcome.check(exhausted > 0, "descriptors run out");
    outcome.check(stats.refused == 0, "no client is refused");
    outcome.check(stats.answered == stats.connected, "every client is answered");
    outcome.add("storms", storms);
    outcome.add("exhausted", exhausted);
    outcome.add("passes", passes);
    Ok(End::Done(Box::new(outcome)))
}
