//! A full server whose gate waits, and clients that quit while they are queued.

use std::time::Duration;

use epoll_acceptor::Gate;

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::request::{Behavior, Request};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "quitters",
    about: "a full server, and clients that quit while queued",
    share: 1.5,
    least: 0.3,
    run,
};

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(8);
    let service = Service::Takes(Duration::from_millis(2));
    let server = Server::start(listen(4096, 0)?, service, build(harness.trigger, &gate, ()))?;
    let quitters = Request::new(server.address, 400, harness.seconds()).behavior(Behavior::Quit(15));
    let quitters = harness.send(quitters)?;
    let patient = Request {
        leave: crate::request::Leave::Closing,
        ..Request::new(server.address, 20, harness.seconds())
    };
    let mut stats = harness.send_and_wait(patient)?;
    let (answered, connected) = (stats.answered, stats.connected);
    let quit = quitters.stats()?;
    stats.add(&quit);
    let full = server.control.counters().full;
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    outcome.check(answered == connected, "every client that waits is answered");
    outcome.check(stats.refused == 0, "a gate that waits refuses no client");
    outcome.check(full > 0, "the server is full");
    outcome.add("quit_while_queued", quit.gone);
    outcome.add("full", full);
    Ok(End::Done(Box::new(outcome)))
}
