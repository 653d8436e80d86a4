//! The listener is shut down under load: the acceptor reports it once, and a new listener serves.

use std::thread;
use std::time::Duration;

use epoll_acceptor::{Gate, State};

use crate::harness::{BOUND, End, Harness, Scenario, ScenarioResult, UnderTest, wait_for};
use crate::request::{Request, Stats};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "shutdown",
    about: "the listener is shut down under load; a new one serves",
    share: 1.0,
    least: 0.3,
    run,
};

/// How long a closed acceptor is observed.
const OBSERVED: Duration = Duration::from_millis(50);

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(64);
    let mut server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let request =
        Request { per_second: Some(2000.0), ..Request::new(server.address, 200, harness.seconds()) };
    let clients = harness.send(request)?;
    let (mut ended, mut deaths, mut reported_once) = (Vec::new(), 0u64, true);
    let pause = (harness.time / 6).max(Duration::from_millis(50));
    for _ in 0..4 {
        thread::sleep(pause);
        server.shut_down()?;
        let reports = || server.stats.deaths.load(std::sync::atomic::Ordering::Acquire);
        reported_once &= wait_for(BOUND, || reports() == 1);
        thread::sleep(OBSERVED);
        reported_once &= reports() == 1 && server.control.state() == State::Closed;
        // Its connections are served until they end.
        let port = server.address.port();
        reported_once &= wait_for(BOUND, || server.in_service() == 0);
        ended.push(server.stop()?);
        deaths += 1;
        server = Server::start(listen(4096, port)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    }
    let stats: Stats = clients.stats()?;
    let under_test = UnderTest { ended_by_the_kernel: stats.refused, ended, ..UnderTest::new(server, &gate) };
    let mut outcome = harness.end(under_test, stats.clone())?;
    outcome.check(reported_once, "the acceptor reports each closed listener once");
    outcome.add("deaths", deaths);
    outcome.add("reset_with_the_listener", stats.refused);
    Ok(End::Done(Box::new(outcome)))
}
