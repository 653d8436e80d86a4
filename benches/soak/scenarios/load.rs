//! As many connections as descriptors allow, opened, used and closed again and again.

use epoll_acceptor::Gate;

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::machine;
use crate::request::{Behavior, Request};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "load",
    about: "as many connections as descriptors allow, again and again",
    share: 8.0,
    least: 0.3,
    run,
};

/// The factor by which the memory may grow after the first round: allocators keep some.
const FLAT: f64 = 1.10;

fn run(harness: &mut Harness) -> ScenarioResult {
    let limit = harness.most;
    let gate = Gate::new(limit);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let request = |seconds| Request {
        // The accept queue holds 4096; further SYNs are dropped, and retransmitted after a second.
        unanswered_at_once: 1024,
        ..Request::new(server.address, limit as usize, seconds).behavior(Behavior::Rounds)
    };
    let begun = std::time::Instant::now();
    let mut stats = harness.send_and_wait(Request { total: limit.into(), ..request(120.0) })?;
    let after_one_round = machine::resident_kib()?;
    let left = harness.seconds() - begun.elapsed().as_secs_f64();
    let rest = harness.send_and_wait(request(left.max(0.1)))?;
    let after_all = machine::resident_kib()?;
    let rounds = stats.rounds + rest.rounds;
    let most_at_once = stats.most_at_once.max(rest.most_at_once);
    let per_second = (stats.answered + rest.answered) as f64 / begun.elapsed().as_secs_f64();
    stats.add(&rest);

    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    outcome.check(stats.answered == stats.connected, "every client is answered");
    outcome.check(stats.failed == 0, "every client connects");
    outcome.check(stats.cut == 0, "the server ends no connection");
    outcome.check(most_at_once == u64::from(limit), "the limit is reached");
    let flat = after_all as f64 <= after_one_round as f64 * FLAT;
    outcome.check(flat, "the server's memory does not grow after the first round");
    outcome.add("rounds", rounds);
    outcome.add("held_at_once", most_at_once);
    outcome.add("per_second", per_second.round());
    outcome.add("rss_kib_after_one_round", after_one_round);
    outcome.add("rss_kib_after_all", after_all);
    Ok(End::Done(Box::new(outcome)))
}
