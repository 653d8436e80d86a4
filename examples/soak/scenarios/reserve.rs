//! Descriptors have run out, and newcomers are refused with the one in reserve.

use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Gate, Refusal};

use crate::machine::Shortage;
use crate::order::Order;
use crate::server::{Server, Service, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "reserve",
    about: "EMFILE, refused with the descriptor in reserve",
    share: 1.0,
    least: 0.3,
    play,
};

const STORM: Duration = Duration::from_millis(40);

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(500);
    let server = Server::start(listen(4096, 0)?, Service::Answer, {
        let (gate, trigger) = (gate.clone(), stage.trigger);
        move |listener, epoll, token| {
            let builder = trigger.on(listener).gate(&gate).refuse_when_exhausted(Refusal::Reset);
            Ok(builder.register(epoll, token)?)
        }
    })?;
    let order = Order::new(server.address, 50, stage.seconds());
    let crowd = stage.send(order)?;
    let begun = Instant::now();
    let anything = std::fs::File::open("/dev/null")?;
    while begun.elapsed() < stage.time {
        let shortage = Shortage::begin(&anything)?;
        thread::sleep(STORM);
        drop(shortage);
        thread::sleep(STORM);
    }
    drop(anything);
    let tally = crowd.tally()?;
    let counters = server.control.counters();
    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    outcome.check(counters.exhausted > 0, "descriptors did run out");
    outcome.check(counters.refused_out_of_descriptors > 0, "the reserve was used");
    outcome.check(
        counters.refused == counters.refused_out_of_descriptors,
        "nobody was refused for another reason",
    );
    outcome.tell("exhausted", counters.exhausted);
    outcome.tell("refused_out_of_descriptors", counters.refused_out_of_descriptors);
    Ok(End::Played(Box::new(outcome)))
}
