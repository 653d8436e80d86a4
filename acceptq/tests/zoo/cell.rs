//! A server in a state, and the verdicts that are right for it.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::Socket;

use crate::clients::Address;

/// The time limit for a server to listen.
const START: Duration = Duration::from_secs(40);
/// The queue has settled when its length has not changed for this long.
const SETTLED: Duration = Duration::from_millis(500);

/// What the clients do, in this order; and what is done to the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    /// Clients that connect first, and what each sends.
    pub(crate) first: (usize, &'static [u8]),
    /// Clients that connect when those have settled.
    pub(crate) then: (usize, &'static [u8]),
    /// Threads that connect again and again during the observation: what they send, the pause in ms, and how
    /// many connections each keeps open instead of waiting for an answer.
    pub(crate) load: Option<(usize, &'static [u8], u64, usize)>,
    /// Which processes are stopped before the second group connects.
    pub(crate) stop: Stop,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    #[default]
    None,
    All,
    /// Every process but the first one.
    Workers,
}

pub(crate) struct Cell {
    pub(crate) server: String,
    pub(crate) state: &'static str,
    pub(crate) address: Address,
    /// `None` if it is not installed.
    pub(crate) command: Option<Box<dyn Fn() -> Command + Send + Sync>>,
    pub(crate) crowd: Crowd,
    pub(crate) right: &'static [&'static str],
    pub(crate) misleading: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Right,
    Misleading,
    Wrong,
    Skipped,
}

pub(crate) struct Result {
    pub(crate) outcome: Outcome,
    pub(crate) verdict: String,
    pub(crate) cause: String,
    pub(crate) note: String,
}

/// A running server: the process group is killed at the end.
struct Running(Child);

impl Running {
    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = killpg(self.group(), Signal::SIGCONT);
        let _ = self.0.wait();
    }
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        format!("{}, {}", self.server, self.state)
    }

    /// Starts the server, brings it into its state, and runs the doctor once.
    pub(crate) fn run(&self) -> Result {
        let Some(command) = &self.command else { return skipped("not installed") };
        let mut command = command();
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("ZOO_STDERR").is_none() {
            command.stderr(Stdio::null());
        }
        let Ok(child) = command.spawn() else { return skipped("does not start") };
        let mut server = Running(child);
        if !self.wait_until_it_listens(&mut server) {
            return skipped("does not listen");
        }
        self.settle();
        let mut clients: Vec<Socket> = self.connect(self.crowd.first);
        self.settle();
        self.stop(&server);
        clients.extend(self.connect(self.crowd.then));
        let load = self.crowd.load.map(|(threads, payload, pause, keep)| {
            self.address.load(threads, payload, Duration::from_millis(pause), keep)
        });
        if load.is_some() {
            thread::sleep(SETTLED * 2);
        }
        self.settle();
        let report = acceptq(&["doctor", &self.address.0, "--json"]);
        if std::env::var_os("ZOO_VERBOSE").is_some() {
            crate::aloud!("{report:#}");
        }
        drop(load);
        self.judge(&report)
    }

    fn connect(&self, (count, payload): (usize, &[u8])) -> Vec<Socket> {
        (0..count).map(|_| self.address.connect(payload)).collect()
    }

    fn wait_until_it_listens(&self, server: &mut Running) -> bool {
        let began = Instant::now();
        while began.elapsed() < START {
            let report = acceptq(&["list", &self.address.0, "--json"]);
            if report["listeners"].as_array().is_some_and(|rows| !rows.is_empty()) {
                return true;
            }
            if matches!(server.0.try_wait(), Ok(Some(_))) {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Waits until the length of the queue and the owner's way to watch it have not changed for a while.
    fn settle(&self) {
        let (began, mut changed, mut last) = (Instant::now(), Instant::now(), Value::Null);
        let limit = if self.crowd.load.is_some() { SETTLED * 2 } else { SETTLED * 10 };
        while changed.elapsed() < SETTLED && began.elapsed() < limit {
            let report = acceptq(&["list", &self.address.0, "--json"]);
            if report["listeners"] != last {
                (last, changed) = (report["listeners"].clone(), Instant::now());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&self, server: &Running) {
        let group = server.group();
        match self.crowd.stop {
            Stop::None => {}
            Stop::All => killpg(group, Signal::SIGSTOP).expect("our own processes"),
            Stop::Workers => {
                let report = acceptq(&["list", &self.address.0, "--json"]);
                let holders = report["listeners"][0]["holders"].as_array().cloned().unwrap_or_default();
                let pids: HashSet<i64> = holders.iter().filter_map(|holder| holder["pid"].as_i64()).collect();
                for pid in pids.into_iter().filter(|pid| *pid != i64::from(group.as_raw())) {
                    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
                    kill(pid, Signal::SIGSTOP).expect("our own process");
                }
            }
        }
    }

    fn judge(&self, report: &Value) -> Result {
        let word = |field: &str| report[field].as_str().unwrap_or("none").to_string();
        let verdict = word("verdict");
        let outcome = match verdict.as_str() {
            verdict if self.right.contains(&verdict) => Outcome::Right,
            verdict if self.misleading.contains(&verdict) || verdict == "undetermined" => Outcome::Misleading,
            _ => Outcome::Wrong,
        };
        let note = format!("{} queued, {} open", report["queued"], report["open"]);
        Result { outcome, verdict, cause: word("cause"), note }
    }
}

fn skipped(why: &str) -> Result {
    Result { outcome: Outcome::Skipped, verdict: "-".into(), cause: "-".into(), note: why.into() }
}

fn acceptq(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_acceptq")).args(arguments).output().expect("the tool runs");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}
