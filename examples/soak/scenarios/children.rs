//! Children are forked, and run another program, while connections are held.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use epoll_acceptor::Gate;

use crate::machine;
use crate::order::{Conduct, Order};
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "children",
    about: "fork and exec while connections are held",
    share: 1.0,
    least: 0.3,
    play,
};

/// The argument that makes this program a child, which tells what it has inherited and stays until its input ends.
pub(crate) const ARGUMENT: &str = "--inherited";

/// So many live at once.
const ALIVE: usize = 8;

fn play(stage: &mut Stage) -> Played {
    let gate = Gate::new(200);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let crowd = stage.send(Order::new(server.address, 150, stage.seconds()).conduct(Conduct::Stay(20)))?;
    let (begun, mut alive, mut born, mut inherited) = (Instant::now(), Vec::new(), 0u64, 0);
    while begun.elapsed() < stage.time {
        let (child, has) = bear()?;
        inherited += has;
        born += 1;
        alive.push(child);
        if alive.len() == ALIVE {
            end(alive.remove(0))?;
        }
    }
    // The connections end while the last children are alive: if one had inherited any, its client would wait.
    let tally = crowd.tally()?;
    let mut outcome = {
        for child in alive {
            end(child)?;
        }
        stage.end(Scene::new(server, &gate), tally.clone())?
    };
    outcome.check(tally.answered == tally.connected, "everybody was answered");
    outcome.check(inherited == 0, "no child inherited a socket or an epoll");
    outcome.leaked_descriptors += inherited;
    outcome.tell("children", born);
    Ok(End::Played(Box::new(outcome)))
}

/// A child, and how many sockets and epolls it has.
fn bear() -> Result<(Child, u64), Box<dyn Error>> {
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

/// What the child does.
pub(crate) fn tell() -> std::io::Result<()> {
    println!("{}", machine::sockets_and_epolls()?);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).map(drop)
}
