//! A paused server whose accept queue is full, and resumed.

use std::time::Instant;

use epoll_acceptor::Gate;

use crate::order::Order;
use crate::server::{Server, Service, build, listen};
use crate::stage::{BOUND, End, Played, Scenario, Scene, Stage, wait_for};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "paused",
    about: "a paused server with a full queue, resumed",
    share: 1.0,
    least: 0.3,
    play,
};

const BACKLOG: u32 = 128;

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(64);
    let backlog = i32::try_from(BACKLOG)?;
    let server = Server::start(listen(backlog, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let (begun, mut times, mut fullest) = (Instant::now(), 0u64, 0);
    let mut tally = crate::order::Tally::default();
    let mut all_queued = true;
    while times == 0 || begun.elapsed() < stage.time {
        server.control.pause();
        // The queue takes one more than its backlog; for those beyond it the SYN comes again.
        let crowd = stage.send(Order::once(server.address, BACKLOG as usize + 1 + 20))?;
        all_queued &= wait_for(BOUND, || server.queued() > BACKLOG);
        fullest = fullest.max(server.queued());
        server.control.resume();
        tally.add(&crowd.tally()?);
        times += 1;
    }
    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    outcome.check(all_queued, "the queue was full");
    outcome.check(tally.answered == tally.connected, "everybody was answered");
    outcome.tell("times", times);
    outcome.tell("queued", fullest);
    Ok(End::Played(Box::new(outcome)))
}
