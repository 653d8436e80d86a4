//! Threads and passes that panic while they hold a connection.

use std::panic;
use std::sync::atomic::Ordering;
use std::thread;

use epoll_acceptor::Gate;

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::request::Request;
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "panics",
    about: "threads and passes that panic with a connection",
    share: 1.0,
    least: 0.3,
    run,
};

fn run(harness: &mut Harness) -> ScenarioResult {
    // Panics on purpose print nothing.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let on_purpose =
            info.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("on purpose"));
        if !on_purpose {
            eprintln!("soak: {:?}: {info}", thread::current().name());
        }
    }));
    let gate = Gate::new(16);
    let server = Server::start(listen(4096, 0)?, Service::Panics, build(harness.trigger, &gate, ()))?;
    let stats = harness.send_and_wait(Request::new(server.address, 64, harness.seconds()))?;
    let panics = server.stats.panics.load(Ordering::Relaxed);
    // A client at the end may meet a panic as well; three in a row never do.
    let mut outcome = harness.end_with(UnderTest::new(server, &gate), stats.clone(), 3)?;
    panic::set_hook(hook);
    outcome.check(panics > 0, "some panic");
    outcome.check(
        stats.refused == panics,
        "only clients that met a panic see the end of the connection instead of a reply",
    );
    outcome.add("panics", panics);
    Ok(End::Done(Box::new(outcome)))
}
