//! One address floods at full speed, and a hundred polite clients come once a second each.

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use epoll_acceptor::{Admission, Epoll, EpollAcceptor, Gate, PeerLimit, Refusal, Token, Trigger, WhenFull};
use serde_json::json;

use crate::order::{Conduct, Leave, Order, Tally};
use crate::server::{Server, Service, listen};
use crate::stage::{End, Outcome, Played, Scenario, Scene, Stage, permille};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "attack",
    about: "one address floods, a hundred polite ones come too",
    share: 4.0,
    least: 2.0,
    play,
};

const LIMIT: u32 = 200;
/// Of one address.
const EACH: u32 = 8;
/// How many connections the flood has open or opens.
const FLOOD: usize = 800;
const POLITE: u32 = 100;
/// So many are refused a second, and at once.
const REFUSALS: (u32, u32) = (20_000, 200);
/// In milliseconds. Whoever has to say its SYN twice waits longer, for a second at least.
const BOUND: f64 = 900.0;

/// The flood alone is refused: by a limit for each peer. Before it, for comparison, by the gate alone.
fn play(stage: &mut Stage) -> Played {
    let whole = stage.time;
    stage.time = whole.mul_f64(0.3);
    let gate = Gate::new(LIMIT).when_full(WhenFull::Shed(Refusal::Reset));
    let (without, polite_without, _) = besiege(stage, &gate, gate.clone())?;

    stage.time = whole.mul_f64(0.7);
    let gate = Gate::new(LIMIT).when_full(WhenFull::Shed(Refusal::Reset));
    let (mut outcome, polite, flood) = besiege(stage, &gate, PeerLimit::new(EACH).and(gate.clone()))?;
    for broken in without.broken {
        outcome.broken.push(format!("without a limit for each peer: {broken}"));
    }
    let waits: &mut Vec<f64> = &mut polite.waits.iter().map(|(_, wait)| *wait).collect();
    let p99 = permille(waits, 990);
    outcome.check(polite.answered == polite.connected && polite.failed == 0, "all polite clients are served");
    outcome
        .check(p99 <= BOUND, &format!("99 of 100 polite clients are served within {BOUND} ms: {p99:.1} ms"));
    outcome.tell("polite", polite.connected);
    outcome.tell("polite_served", polite.answered);
    outcome.tell("wait_ms", json!({ "p50": permille(waits, 500), "p99": p99, "max": permille(waits, 1000) }));
    outcome.tell("flood_per_second", (flood.connected as f64 / stage.seconds()).round());
    outcome.tell("flood_refused", flood.refused);
    let without = json!({ "polite": polite_without.connected, "polite_served": polite_without.answered });
    outcome.tell("with_the_gate_alone", without);
    Ok(End::Played(Box::new(outcome)))
}

/// The outcome, what became of the polite ones, and of the flood.
fn besiege<A>(stage: &mut Stage, gate: &Gate, policy: A) -> Result<(Outcome, Tally, Tally), Box<dyn Error>>
where
    A: Admission<Permit: Send> + 'static,
{
    let server = Server::start(listen(4096, 0)?, Service::Answer, shedding(stage.trigger, policy))?;
    let flood = Order {
        from: (Ipv4Addr::LOCALHOST, 1),
        leave: Leave::Resetting,
        gives_up: true,
        // It keeps what it is given.
        ..Order::new(server.address, FLOOD, stage.seconds()).conduct(Conduct::Stay(60_000))
    };
    let flood = stage.send(flood)?;
    // The flood is there first.
    std::thread::sleep(Duration::from_millis(200).min(stage.time / 4));
    let polite = Order {
        from: (Ipv4Addr::new(127, 0, 0, 2), POLITE),
        per_second: Some(POLITE.into()),
        waits: true,
        ..Order::new(server.address, 1000, stage.seconds() * 0.7)
    };
    let polite = stage.send_and_wait(polite)?;
    let flood = flood.tally()?;
    let mut tally = polite.clone();
    tally.add(&flood);
    let mut outcome = stage.end(Scene::new(server, gate), tally)?;
    outcome.check(flood.refused > 0, "the flood was refused");
    Ok((outcome, polite, flood))
}

fn shedding<A: Admission>(
    trigger: Trigger,
    policy: A,
) -> impl FnOnce(TcpListener, &Epoll, Token) -> std::io::Result<EpollAcceptor<TcpListener, Trigger, A>> {
    move |listener, epoll, token| {
        let builder = trigger.on(listener).admission(policy).refuse_at_most(REFUSALS.0, REFUSALS.1);
        Ok(builder.register(epoll, token)?)
    }
}
