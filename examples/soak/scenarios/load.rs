//! As many connections as the descriptors allow, opened, used and closed over and over.

use epoll_acceptor::Gate;

use crate::machine;
use crate::order::{Conduct, Order};
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "load",
    about: "as many connections as descriptors allow, over and over",
    share: 8.0,
    least: 0.3,
    play,
};

/// By how much the memory of a round that is like the one before may differ: allocators keep what they like.
const FLAT: f64 = 1.10;

fn play(stage: &mut Stage) -> Played {
    let limit = stage.most;
    let gate = Gate::new(limit);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let order = |seconds| Order {
        // The accept queue holds 4096: beyond that a SYN is dropped, and comes again after a second.
        unanswered_at_once: 1024,
        ..Order::new(server.address, limit as usize, seconds).conduct(Conduct::Rounds)
    };
    let begun = std::time::Instant::now();
    let mut tally = stage.send_and_wait(Order { total: limit.into(), ..order(120.0) })?;
    let after_one_round = machine::resident_kib()?;
    let left = stage.seconds() - begun.elapsed().as_secs_f64();
    let rest = stage.send_and_wait(order(left.max(0.1)))?;
    let after_all = machine::resident_kib()?;
    let rounds = tally.rounds + rest.rounds;
    let most_at_once = tally.most_at_once.max(rest.most_at_once);
    let per_second = (tally.answered + rest.answered) as f64 / begun.elapsed().as_secs_f64();
    tally.add(&rest);

    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    outcome.check(tally.answered == tally.connected, "every connection was answered");
    outcome.check(tally.failed == 0, "every client was connected");
    outcome.check(tally.cut == 0, "no connection was ended by the server");
    outcome.check(most_at_once == u64::from(limit), "as many as the limit were there at once");
    let flat = after_all as f64 <= after_one_round as f64 * FLAT;
    outcome.check(flat, "the server's memory is what it was after the first round");
    outcome.tell("rounds", rounds);
    outcome.tell("held_at_once", most_at_once);
    outcome.tell("per_second", per_second.round());
    outcome.tell("rss_kib_after_one_round", after_one_round);
    outcome.tell("rss_kib_after_all", after_all);
    Ok(End::Played(Box::new(outcome)))
}
