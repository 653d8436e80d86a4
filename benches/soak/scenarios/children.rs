//! Child processes are started (fork and exec) while connections are open.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use epoll_acceptor::Gate;

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::machine;
use crate::request::{Behavior, Request};
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "children",
    about: "fork and exec while connections are open",
    share: 1.0,
    least: 0.3,
    run,
};

/// The argument that makes this program a child, which prints how many sockets it has inherited and runs until its
/// standard input ends.
pub(crate) const ARGUMENT: &str = "--inherited";

/// How many run at once.
const ALIVE: usize = 8;

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(200);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let clients =
        harness.send(Request::new(server.address, 150, harness.seconds()).behavior(Behavior::Stay(20)))?;
    let (begun, mut alive, mut spawned, mut inherited) = (Instant::now(), Vec::new(), 0u64, 0);
    while begun.elapsed() < harness.time {
        let (child, sockets) = spawn()?;
        inherited += sockets;
        spawned += 1;
        alive.push(child);
        if alive.len() == ALIVE {
            end(alive.remove(0))?;
        }
    }
    // The connections end while the last children run: the client of an inherited one would wait.
    let stats = clients.stats()?;
    let mut outcome = {
        for child in alive {
            end(child)?;
        }
        harness.end(UnderTest::new(server, &gate), stats.clone())?
    };
    outcome.check(stats.answered == stats.connected, "every client is answered");
    outcome.check(inherited == 0, "no child inherits a socket or an epoll");
    outcome.leaked_descriptors += inherited;
    outcome.add("children", spawned);
    Ok(End::Done(Box::new(outcome)))
}

/// Starts a child. Returns it, and how many sockets and epolls it has.
fn spawn() -> Result<(Child, u64), Box<dyn Error>> {
    let mut child = Command::new(env::current_exe()?)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is a pipe")).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

fn end(mut child: Child) -> std::io::Result<()> {
    drop(child.stdin.take());
    child.wait().map(drop)
}

/// The main function of a child.
pub(crate) fn report_inherited() -> std::io::Result<()> {
    println!("{}", machine::sockets_and_epolls()?);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).map(drop)
}
