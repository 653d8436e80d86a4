//! What every scenario uses, how each ends, and its outcome.

use std::error::Error;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Gate, Trigger};
use serde_json::{Map, Value, json};

use crate::client_process::{ClientProcess, Running};
use crate::machine;
use crate::request::{Request, Stats};
use crate::server::{Ended, Server};

/// The bound of every wait for something that must happen.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) type ScenarioResult = Result<End, Box<dyn Error>>;

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Its share of the time, relative to the other scenarios.
    pub(crate) share: f64,
    /// The least time that it takes, in seconds.
    pub(crate) least: f64,
    pub(crate) run: fn(&mut Harness) -> ScenarioResult,
}

/// How a scenario ended.
pub(crate) enum End {
    Done(Box<Outcome>),
    /// What this machine or this user cannot do, and what tests it instead.
    Skipped(String),
}

/// What was observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) connected: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    /// Clients that received nothing within their patience.
    pub(crate) unanswered: u64,
    /// Left in the accept queue at the end, with permits available.
    pub(crate) stranded: u64,
    pub(crate) leaked_descriptors: u64,
    pub(crate) peak_in_service: u64,
    /// 0: no limit.
    pub(crate) limit: u64,
    /// Checks that failed.
    pub(crate) broken: Vec<String>,
    /// Figures of this scenario only.
    pub(crate) more: Map<String, Value>,
}

/// Runs scenarios.
pub(crate) struct Harness {
    pub(crate) clients: ClientProcess,
    /// How long the scenario may take.
    pub(crate) time: Duration,
    /// The largest number of connections this process can hold.
    pub(crate) most: u32,
    /// The trigger of every acceptor.
    pub(crate) trigger: Trigger,
    descriptors_before: u64,
}

/// The server with which a scenario ends, and its gate.
pub(crate) struct UnderTest {
    pub(crate) server: Server,
    pub(crate) gate: Gate,
    /// Connections that the kernel ended while they were queued: no acceptor sees them.
    pub(crate) ended_by_the_kernel: u64,
    /// Earlier servers of the same scenario.
    pub(crate) ended: Vec<Ended>,
}

impl UnderTest {
    pub(crate) fn new(server: Server, gate: &Gate) -> Self {
        Self { server, gate: gate.clone(), ended_by_the_kernel: 0, ended: Vec::new() }
    }
}

impl Harness {
    pub(crate) fn new(clients: ClientProcess, most: u32, trigger: Trigger) -> io::Result<Self> {
        Ok(Self { clients, time: Duration::ZERO, most, trigger, descriptors_before: machine::descriptors()? })
    }

    /// Begins a scenario.
    pub(crate) fn begin(&mut self, time: Duration) -> io::Result<()> {
        self.time = time;
        self.descriptors_before = machine::descriptors()?;
        Ok(())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.time.as_secs_f64()
    }

    pub(crate) fn send(&mut self, request: Request) -> io::Result<Running> {
        self.clients.send(request)
    }

    /// Starts clients and waits until they have closed.
    pub(crate) fn send_and_wait(&mut self, request: Request) -> Result<Stats, Box<dyn Error>> {
        self.send(request)?.stats()
    }

    /// Ends a scenario: waits until the server is idle, has one more client served, and checks all counts.
    pub(crate) fn end(&mut self, under_test: UnderTest, stats: Stats) -> Result<Outcome, Box<dyn Error>> {
        self.end_with(under_test, stats, 1)
    }

    /// As `end`, with several more clients, of which at least one must be served.
    pub(crate) fn end_with(
        &mut self,
        under_test: UnderTest,
        mut stats: Stats,
        more: usize,
    ) -> Result<Outcome, Box<dyn Error>> {
        let UnderTest { server, gate, ended_by_the_kernel, mut ended } = under_test;
        let mut outcome = Outcome::default();
        let idle = wait_for(BOUND, || server.queued() == 0 && server.in_service() == 0);
        outcome
            .check(idle, "the queue is empty and no connection is in service when all clients have closed");
        let later = self.send_and_wait(Request { patience: 5.0, ..Request::once(server.address, more) })?;
        outcome.check(later.answered > 0, "one more client is served");
        stats.add(&later);
        let released = gate.wait_idle(Some(BOUND));
        outcome.check(released, "all permits are released");
        outcome.limit = gate.limit().into();
        ended.push(server.stop()?);

        let seen = outcome.add_servers(&ended);
        outcome.connected = stats.connected;
        outcome.unanswered = stats.unanswered;
        outcome.check_clients(&stats, seen, ended_by_the_kernel);
        outcome.leaked_descriptors = self.leaked()?;
        let leaked = outcome.leaked_descriptors == 0;
        outcome.check(leaked, "no descriptor is leaked");
        Ok(outcome)
    }

    /// Returns how many more descriptors are open than when the scenario began.
    fn leaked(&self) -> io::Result<u64> {
        let mut now = machine::descriptors()?;
        let begun = Instant::now();
        while now > self.descriptors_before && begun.elapsed() < BOUND {
            thread::sleep(Duration::from_millis(5));
            now = machine::descriptors()?;
        }
        Ok(now.saturating_sub(self.descriptors_before))
    }
}

impl Outcome {
    pub(crate) fn check(&mut self, fact: bool, wording: &str) {
        if !fact {
            self.broken.push(wording.to_owned());
        }
    }

    pub(crate) fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.more.insert(key.to_owned(), value.into());
    }

    pub(crate) fn is_balanced(&self) -> bool {
        self.broken.is_empty()
    }

    /// Adds the counters of the servers. Returns how many connections they have accepted.
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
        self.check(self.stranded == 0, "no connection is left in the queue");
        self.check(self.limit == 0 || self.peak_in_service <= self.limit, "the limit is never exceeded");
        seen
    }

    fn check_clients(&mut self, stats: &Stats, seen: u64, ended_by_the_kernel: u64) {
        let known = stats.answered + stats.refused + stats.gone + stats.unanswered;
        self.check(
            known == stats.connected,
            "every connected client was answered or refused, has closed, or has timed out",
        );
        self.check(stats.unanswered == 0, "every client that waits is answered or refused");
        // A client that resets may do so before the server's side of the handshake is complete; a connect that timed out
        // may have been complete for the server.
        let certain = stats.connected.saturating_sub(stats.gone + ended_by_the_kernel);
        let possible = stats.connected + stats.failed;
        let all = (certain..=possible).contains(&seen);
        if !all {
            self.broken
                .push(format!("the server accepts {certain} to {possible} connections (it accepted {seen})"));
        }
        if let Some(error) = &stats.error {
            self.add("failed", json!({ "clients": stats.failed, "first": error }));
        }
    }
}

/// Polls until the condition holds. Returns whether it did within `bound`.
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

/// Returns a quantile, in thousandths; 0 if there are no values.
pub(crate) fn permille(values: &mut [f64], permille: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((values.len() * permille / 1000).min(last)).copied().unwrap_or(0.0)
}
