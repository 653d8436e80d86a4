//! Connections that are destroyed (`SOCK_DESTROY`, `ss -K`) while they are queued.

use std::process::Command;

use epoll_acceptor::Gate;

use crate::harness::{BOUND, End, Harness, Scenario, ScenarioResult, UnderTest, wait_for};
use crate::request::{Request, Stats};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "destroyed",
    about: "queued connections are destroyed (SOCK_DESTROY)",
    share: 0.5,
    least: 0.3,
    run,
};

const QUEUED: u32 = 100;

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(10);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let begun = std::time::Instant::now();
    let (mut stats, mut destroyed, mut delivered, mut times) = (Stats::default(), 0, true, 0u64);
    while times == 0 || begun.elapsed() < harness.time {
        let pause = server.control.pause();
        let clients = harness.send(Request::once(server.address, QUEUED as usize))?;
        let queued = wait_for(BOUND, || server.queued() >= QUEUED);
        if let Err(why) = destroy(server.address.port()) {
            drop(pause);
            stats.add(&clients.stats()?);
            harness.end(UnderTest::new(server, &gate), stats)?;
            return Ok(End::Skipped(why));
        }
        // Destroyed connections stay in the queue.
        delivered &= queued && server.queued() == QUEUED;
        drop(pause);
        let clients = clients.stats()?;
        destroyed += clients.refused;
        stats.add(&clients);
        // The clients know before the server does.
        delivered &= wait_for(BOUND, || server.queued() == 0);
        times += 1;
    }
    if destroyed == 0 {
        harness.end(UnderTest::new(server, &gate), stats)?;
        return Ok(End::Skipped("this kernel destroys no sockets (CONFIG_INET_DIAG_DESTROY)".to_owned()));
    }
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    outcome.check(delivered, "connections that are destroyed in the queue are delivered");
    outcome.add("destroyed", destroyed);
    Ok(End::Done(Box::new(outcome)))
}

/// Destroys the server's side of all connections to this port, and nothing else.
fn destroy(port: u16) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("destroying sockets needs CAP_NET_ADMIN: run it as root".to_owned());
    }
    let filter = format!("src 127.0.0.1 and sport = :{port}");
    let output = Command::new("ss")
        .args(["--kill", "--tcp", "--numeric", "state", "established", &filter])
        .output()
        .map_err(|error| format!("needs `ss` of iproute2: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() && error.is_empty() {
        Ok(())
    } else {
        Err(format!("`ss --kill` fails: {error}"))
    }
}
