//! What every scenario has at hand, how each ends, and what is left of it.

use std::error::Error;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Gate, Trigger};
use serde_json::{Map, Value, json};

use crate::clients::{Clients, Running};
use crate::machine;
use crate::order::{Order, Tally};
use crate::server::{Ended, Server};

/// The bound of every wait for something that is certain to come.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) type Played = Result<End, Box<dyn Error>>;

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Its part of the time, against the others.
    pub(crate) share: f64,
    /// The seconds that it takes at the least.
    pub(crate) least: f64,
    pub(crate) play: fn(&mut Stage) -> Played,
}

/// How a scenario ended.
pub(crate) enum End {
    Played(Box<Outcome>),
    /// What this machine or this user cannot do, and where it is looked at instead.
    Skipped(String),
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) connected: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    /// Clients that heard nothing as long as their patience lasted.
    pub(crate) unanswered: u64,
    /// Left in the accept queue when all was calm and there was room.
    pub(crate) stranded: u64,
    pub(crate) leaked_descriptors: u64,
    pub(crate) peak_in_service: u64,
    /// 0 if there is none.
    pub(crate) limit: u64,
    /// What did not come true.
    pub(crate) broken: Vec<String>,
    /// What only this scenario has.
    pub(crate) more: Map<String, Value>,
}

/// Where a scenario is played.
pub(crate) struct Stage {
    pub(crate) clients: Clients,
    /// For how long it may be played.
    pub(crate) time: Duration,
    /// The largest number of connections this process can hold.
    pub(crate) most: u32,
    /// Of every acceptor.
    pub(crate) trigger: Trigger,
    before: u64,
}

/// The server and its gate, with which a scenario ends.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) gate: Gate,
    /// Of connections that the kernel itself ended while they were queued, the acceptor never hears.
    pub(crate) ended_by_the_kernel: u64,
    /// What came before, on other servers.
    pub(crate) ended: Vec<Ended>,
}

impl Scene {
    pub(crate) fn new(server: Server, gate: &Gate) -> Self {
        Self { server, gate: gate.clone(), ended_by_the_kernel: 0, ended: Vec::new() }
    }
}

impl Stage {
    pub(crate) fn new(clients: Clients, most: u32, trigger: Trigger) -> io::Result<Self> {
        Ok(Self { clients, time: Duration::ZERO, most, trigger, before: machine::descriptors()? })
    }

    /// Before each scenario.
    pub(crate) fn set(&mut self, time: Duration) -> io::Result<()> {
        self.time = time;
        self.before = machine::descriptors()?;
        Ok(())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.time.as_secs_f64()
    }

    pub(crate) fn send(&mut self, order: Order) -> io::Result<Running> {
        self.clients.send(order)
    }

    /// Sends a crowd and waits until it has gone.
    pub(crate) fn send_and_wait(&mut self, order: Order) -> Result<Tally, Box<dyn Error>> {
        self.send(order)?.tally()
    }

    /// The end of every scenario: calm, a newcomer who is served, and then the accounts.
    pub(crate) fn end(&mut self, scene: Scene, tally: Tally) -> Result<Outcome, Box<dyn Error>> {
        self.end_with(scene, tally, 1)
    }

    /// As `end`, with so many newcomers, one of whom at least is served.
    pub(crate) fn end_with(
        &mut self,
        scene: Scene,
        mut tally: Tally,
        newcomers: usize,
    ) -> Result<Outcome, Box<dyn Error>> {
        let Scene { server, gate, ended_by_the_kernel, mut ended } = scene;
        let mut outcome = Outcome::default();
        let calm = wait_for(BOUND, || server.queued() == 0 && server.in_service() == 0);
        outcome.check(calm, "queue and service are empty when all clients have gone");
        let newcomer =
            self.send_and_wait(Order { patience: 5.0, ..Order::once(server.address, newcomers) })?;
        outcome.check(newcomer.answered > 0, "a newcomer is served");
        tally.add(&newcomer);
        let given_back = gate.wait_idle(Some(BOUND));
        outcome.check(given_back, "all permits are given back");
        outcome.limit = gate.limit().into();
        ended.push(server.stop()?);

        let seen = outcome.add_servers(&ended);
        outcome.connected = tally.connected;
        outcome.unanswered = tally.unanswered;
        outcome.check_clients(&tally, seen, ended_by_the_kernel);
        outcome.leaked_descriptors = self.leaked()?;
        let leaked = outcome.leaked_descriptors == 0;
        outcome.check(leaked, "as many descriptors are open as before");
        Ok(outcome)
    }

    /// How many more descriptors are open than when the scenario began.
    fn leaked(&self) -> io::Result<u64> {
        let mut now = machine::descriptors()?;
        let begun = Instant::now();
        while now > self.before && begun.elapsed() < BOUND {
            thread::sleep(Duration::from_millis(5));
            now = machine::descriptors()?;
        }
        Ok(now.saturating_sub(self.before))
    }
}

impl Outcome {
    pub(crate) fn check(&mut self, fact: bool, wording: &str) {
        if !fact {
            self.broken.push(wording.to_owned());
        }
    }

    pub(crate) fn tell(&mut self, key: &str, value: impl Into<Value>) {
        self.more.insert(key.to_owned(), value.into());
    }

    pub(crate) fn is_balanced(&self) -> bool {
        self.broken.is_empty()
    }

    /// Adds up what the servers did; how many connections they have seen.
    fn add_servers(&mut self, ended: &[Ended]) -> u64 {
        let mut seen = 0;
        for Ended { counters, peak, queued, .. } in ended {
            self.check(counters.is_balanced(), "every attempt and every refusal is accounted for");
            self.delivered += counters.delivered;
            self.refused += counters.refused;
            self.stranded += u64::from(*queued);
            self.peak_in_service = self.peak_in_service.max((*peak).into());
            seen += counters.delivered + counters.refused + counters.aborted;
        }
        self.check(self.stranded == 0, "nobody is left in the queue");
        self.check(self.limit == 0 || self.peak_in_service <= self.limit, "the limit is kept");
        seen
    }

    fn check_clients(&mut self, tally: &Tally, seen: u64, ended_by_the_kernel: u64) {
        let told = tally.answered + tally.refused + tally.gone + tally.unanswered;
        self.check(told == tally.connected, "every client knows what became of it");
        self.check(tally.unanswered == 0, "nobody who stays goes without an answer or an end");
        // Who goes by a reset may be gone before the server's side of the handshake is done; who gave up connecting may
        // have been connected for the server.
        let certain = tally.connected.saturating_sub(tally.gone + ended_by_the_kernel);
        let possible = tally.connected + tally.failed;
        let all = (certain..=possible).contains(&seen);
        if !all {
            self.broken.push(format!("the server has seen {seen} connections, of {certain} to {possible}"));
        }
        if let Some(error) = &tally.error {
            self.tell("failed", json!({ "clients": tally.failed, "first": error }));
        }
    }
}

/// Looks again and again until something has come true, or the time is over.
pub(crate) fn wait_for(bound: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is_true() {
            return true;
        }
        if begun.elapsed() > bound {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The value below which so many of a thousand are; 0 of nothing.
pub(crate) fn permille(values: &mut [f64], permille: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((values.len() * permille / 1000).min(last)).copied().unwrap_or(0.0)
}
