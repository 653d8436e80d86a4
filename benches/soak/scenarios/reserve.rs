//! Descriptors have run out, and connections are refused with the reserve descriptor.

use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Gate, Refusal};

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::machine::Exhaustion;
use crate::request::Request;
use crate::server::{Server, Service, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "reserve",
    about: "EMFILE, refused with the reserve descriptor",
    share: 1.0,
    least: 0.3,
    run,
};

const STORM: Duration = Duration::from_millis(40);

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(500);
    let server = Server::start(listen(4096, 0)?, Service::Answer, {
        let (gate, trigger) = (gate.clone(), harness.trigger);
        move |listener, epoll, token| {
            let builder = trigger.on(listener).gate(&gate).refuse_when_exhausted(Refusal::Reset);
            Ok(builder.register(epoll, token)?)
        }
    })?;
    let request = Request::new(server.address, 50, harness.seconds());
    let clients = harness.send(request)?;
    let begun = Instant::now();
    let any = std::fs::File::open("/dev/null")?;
    while begun.elapsed() < harness.time {
        let exhaustion = Exhaustion::begin(&any)?;
        thread::sleep(STORM);
        drop(exhaustion);
        thread::sleep(STORM);
    }
    drop(any);
    let stats = clients.stats()?;
    let counters = server.control.counters();
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    outcome.check(counters.exhausted > 0, "descriptors run out");
    outcome.check(counters.refused_out_of_descriptors > 0, "the reserve is used");
    outcome.check(
        counters.refused == counters.refused_out_of_descriptors,
        "no client is refused for another reason",
    );
    outcome.add("exhausted", counters.exhausted);
    outcome.add("refused_out_of_descriptors", counters.refused_out_of_descriptors);
    Ok(End::Done(Box::new(outcome)))
}
