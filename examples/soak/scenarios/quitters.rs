//! A full server that pauses, and clients that quit while they are queued.

use std::time::Duration;

use epoll_acceptor::Gate;

use crate::order::{Conduct, Order};
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "quitters",
    about: "a full server, and clients that quit while queued",
    share: 1.5,
    least: 0.3,
    play,
};

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(8);
    let service = Service::Takes(Duration::from_millis(2));
    let server = Server::start(listen(4096, 0)?, service, build(stage.trigger, gate.clone()))?;
    let quitters = Order::new(server.address, 400, stage.seconds()).conduct(Conduct::Quit(15));
    let quitters = stage.send(quitters)?;
    let patient =
        Order { leave: crate::order::Leave::Closing, ..Order::new(server.address, 20, stage.seconds()) };
    let mut tally = stage.send_and_wait(patient)?;
    let (answered, connected) = (tally.answered, tally.connected);
    let quit = quitters.tally()?;
    tally.add(&quit);
    let full = server.control.counters().full;
    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    outcome.check(answered == connected, "who waited was answered");
    outcome.check(tally.refused == 0, "a gate that pauses refuses nobody");
    outcome.check(full > 0, "the server was full");
    outcome.tell("quit_while_queued", quit.gone);
    outcome.tell("full", full);
    Ok(End::Played(Box::new(outcome)))
}
