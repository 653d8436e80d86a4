//! Clients that reset their connections at once, and regular ones among them.

use epoll_acceptor::Gate;

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::request::{Behavior, Request};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario =
    Scenario { name: "resets", about: "connect and reset, as fast as possible", share: 1.0, least: 0.3, run };

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(64);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let storm = Request::new(server.address, 500, harness.seconds()).behavior(Behavior::Reset);
    let storm = harness.send(storm)?;
    let regular = Request { per_second: Some(200.0), ..Request::new(server.address, 100, harness.seconds()) };
    let mut stats = harness.send_and_wait(regular)?;
    let (answered, connected) = (stats.answered, stats.connected);
    let resets = storm.stats()?;
    stats.add(&resets);
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats)?;
    outcome.check(answered == connected, "every regular client is answered");
    outcome.add("resets", resets.gone);
    Ok(End::Done(Box::new(outcome)))
}
