//! The listener is shut down under load: its death is told once, and a new listener serves.

use std::thread;
use std::time::Duration;

use epoll_acceptor::{Gate, State};

use crate::order::{Order, Tally};
use crate::server::{Server, Service, build, listen};
use crate::stage::{BOUND, End, Played, Scenario, Scene, Stage, wait_for};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "shutdown",
    about: "the listener is shut down under load; a new one serves",
    share: 1.0,
    least: 0.3,
    play,
};

/// How long a dead acceptor is watched.
const WATCHED: Duration = Duration::from_millis(50);

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(64);
    let mut server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let order = Order { per_second: Some(2000.0), ..Order::new(server.address, 200, stage.seconds()) };
    let crowd = stage.send(order)?;
    let (mut ended, mut deaths, mut told_once) = (Vec::new(), 0u64, true);
    let pause = (stage.time / 6).max(Duration::from_millis(50));
    for _ in 0..4 {
        thread::sleep(pause);
        server.shut_down()?;
        let told = || server.books.deaths.load(std::sync::atomic::Ordering::Acquire);
        told_once &= wait_for(BOUND, || told() == 1);
        thread::sleep(WATCHED);
        told_once &= told() == 1 && server.control.state() == State::Closed;
        // Its connections are served to their end.
        let port = server.address.port();
        let in_peace = wait_for(BOUND, || server.in_service() == 0);
        told_once &= in_peace;
        ended.push(server.stop()?);
        deaths += 1;
        server = Server::start(listen(4096, port)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    }
    let tally: Tally = crowd.tally()?;
    let scene = Scene { ended_by_the_kernel: tally.refused, ended, ..Scene::new(server, &gate) };
    let mut outcome = stage.end(scene, tally.clone())?;
    outcome.check(told_once, "each death was told once");
    outcome.tell("deaths", deaths);
    outcome.tell("reset_with_the_listener", tally.refused);
    Ok(End::Played(Box::new(outcome)))
}
