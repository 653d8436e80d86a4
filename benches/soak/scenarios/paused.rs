//! A paused server with a full accept queue is resumed.

use std::time::Instant;

use epoll_acceptor::Gate;

use crate::harness::{BOUND, End, Harness, Scenario, ScenarioResult, UnderTest, wait_for};
use crate::request::Request;
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "paused",
    about: "a paused server with a full queue, resumed",
    share: 1.0,
    least: 0.3,
    run,
};

const BACKLOG: u32 = 128;

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(64);
    let backlog = i32::try_from(BACKLOG)?;
    let server = Server::start(listen(backlog, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let (begun, mut times, mut fullest) = (Instant::now(), 0u64, 0);
    let mut stats = crate::request::Stats::default();
    let mut all_queued = true;
    while times == 0 || begun.elapsed() < harness.time {
        let pause = server.control.pause();
        // The queue holds one more than its backlog; further clients retransmit their SYN.
        let clients = harness.send(Request::once(server.address, BACKLOG as usize + 1 + 20))?;
        all_queued &= wait_for(BOUND, || server.queued() > BACKLOG);
        fullest = fullest.max(server.queued());
        drop(pause);
        stats.add(&clients.stats()?);
        times += 1;
    }
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    outcome.check(all_queued, "the queue is full");
    outcome.check(stats.answered == stats.connected, "every client is answered");
    outcome.add("times", times);
    outcome.add("queued", fullest);
    Ok(End::Done(Box::new(outcome)))
}
