//! Clients that connect and reset the connection at once, and polite ones among them.

use epoll_acceptor::Gate;

use crate::order::{Conduct, Order};
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "resets",
    about: "connect and reset, as fast as possible",
    share: 1.0,
    least: 0.3,
    play,
};

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(64);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let storm = Order::new(server.address, 500, stage.seconds()).conduct(Conduct::Reset);
    let storm = stage.send(storm)?;
    let polite = Order { per_second: Some(200.0), ..Order::new(server.address, 100, stage.seconds()) };
    let mut tally = stage.send_and_wait(polite)?;
    let (answered, connected) = (tally.answered, tally.connected);
    let resets = storm.tally()?;
    tally.add(&resets);
    let mut outcome = stage.end(Scene::new(server, &gate), tally)?;
    outcome.check(answered == connected, "who asked was answered");
    outcome.tell("resets", resets.gone);
    Ok(End::Played(Box::new(outcome)))
}
