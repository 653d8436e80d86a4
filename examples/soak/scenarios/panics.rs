//! Threads that panic while they hold a connection, and passes that do.

use std::panic;
use std::sync::atomic::Ordering;
use std::thread;

use epoll_acceptor::Gate;

use crate::order::Order;
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "panics",
    about: "threads and passes that panic with a connection",
    share: 1.0,
    least: 0.3,
    play,
};

fn play(stage: &mut Stage) -> Played {
    // What panics on purpose says nothing.
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let on_purpose =
            info.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("on purpose"));
        if !on_purpose {
            eprintln!("soak: {:?}: {info}", thread::current().name());
        }
    }));
    let gate = Gate::new(16);
    let server = Server::start(listen(4096, 0)?, Service::Panics, build(stage.trigger, gate.clone()))?;
    let tally = stage.send_and_wait(Order::new(server.address, 64, stage.seconds()))?;
    let panics = server.books.panics.load(Ordering::Relaxed);
    // The newcomer at the end may meet a panic as well: three in a row never do.
    let mut outcome = stage.end_with(Scene::new(server, &gate), tally.clone(), 3)?;
    panic::set_hook(told);
    outcome.check(panics > 0, "there were panics");
    outcome.check(
        tally.refused == panics,
        "who met a panic was told by the end of the connection, and nobody else",
    );
    outcome.tell("panics", panics);
    Ok(End::Played(Box::new(outcome)))
}
