//! Descriptors run out and come back, while clients come.

use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::Gate;

use crate::machine::Shortage;
use crate::order::{Conduct, Order};
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "emfile",
    about: "EMFILE again and again while clients come",
    share: 1.5,
    least: 0.3,
    play,
};

/// How long each shortage lasts, and each time without.
const STORM: Duration = Duration::from_millis(40);

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(500);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let order = Order::new(server.address, 400, stage.seconds()).conduct(Conduct::Stay(5));
    let crowd = stage.send(order)?;
    let (begun, mut storms) = (Instant::now(), 0u64);
    let anything = std::fs::File::open("/dev/null")?;
    while begun.elapsed() < stage.time {
        // By turns none at all, and those that others give back.
        let shortage = if storms % 2 == 0 { Shortage::complete()? } else { Shortage::begin(&anything)? };
        thread::sleep(STORM);
        drop(shortage);
        thread::sleep(STORM);
        storms += 1;
    }
    drop(anything);
    let tally = crowd.tally()?;
    let exhausted = server.control.counters().exhausted;
    let passes = server.control.counters().passes;
    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    outcome.check(exhausted > 0, "descriptors did run out");
    outcome.check(tally.refused == 0, "who waits for a descriptor is not refused");
    outcome.check(tally.answered == tally.connected, "everybody was answered in the end");
    outcome.tell("storms", storms);
    outcome.tell("exhausted", exhausted);
    outcome.tell("passes", passes);
    Ok(End::Played(Box::new(outcome)))
}
