//! Connections that somebody destroys (`SOCK_DESTROY`, `ss -K`) while they are queued.

use std::process::Command;

use epoll_acceptor::Gate;

use crate::order::{Order, Tally};
use crate::server::{Server, Service, build, listen};
use crate::stage::{BOUND, End, Played, Scenario, Scene, Stage, wait_for};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "destroyed",
    about: "queued connections are destroyed (SOCK_DESTROY)",
    share: 0.5,
    least: 0.3,
    play,
};

const QUEUED: u32 = 100;

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(10);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let begun = std::time::Instant::now();
    let (mut tally, mut destroyed, mut delivered, mut times) = (Tally::default(), 0, true, 0u64);
    while times == 0 || begun.elapsed() < stage.time {
        server.control.pause();
        let crowd = stage.send(Order::once(server.address, QUEUED as usize))?;
        let queued = wait_for(BOUND, || server.queued() >= QUEUED);
        if let Err(why) = destroy(server.address.port()) {
            server.control.resume();
            tally.add(&crowd.tally()?);
            stage.end(Scene::new(server, &gate), tally)?;
            return Ok(End::Skipped(why));
        }
        // They have lost their connection, and not their place in the queue.
        delivered &= queued && server.queued() == QUEUED;
        server.control.resume();
        let crowd = crowd.tally()?;
        destroyed += crowd.refused;
        tally.add(&crowd);
        // Their clients knew before the server did.
        delivered &= wait_for(BOUND, || server.queued() == 0);
        times += 1;
    }
    if destroyed == 0 {
        stage.end(Scene::new(server, &gate), tally)?;
        return Ok(End::Skipped("this kernel destroys no sockets (CONFIG_INET_DIAG_DESTROY)".to_owned()));
    }
    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    outcome.check(delivered, "who is destroyed in the queue is delivered all the same");
    outcome.tell("destroyed", destroyed);
    Ok(End::Played(Box::new(outcome)))
}

/// Destroys the server's side of all connections to this port, and nothing else.
fn destroy(port: u16) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("destroying sockets needs CAP_NET_ADMIN: run it as root".to_owned());
    }
    let filter = format!("src 127.0.0.1 and sport = :{port}");
    let done = Command::new("ss")
        .args(["--kill", "--tcp", "--numeric", "state", "established", &filter])
        .output()
        .map_err(|error| format!("no `ss` of iproute2: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() && said.is_empty() { Ok(()) } else { Err(format!("`ss --kill` says: {said}")) }
}
