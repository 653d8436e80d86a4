//! A server as a child process, and what can be observed of it.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::net::TcpState;
use procfs::process::{Process, Task};
use rustix::process::{Resource, Rlimit, prlimit};

use crate::client::Client;
use crate::{Program, Protocol, eventually};

/// A server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    protocol: Protocol,
    pub(crate) address: SocketAddr,
    /// What it printed before its address.
    pub(crate) preamble: String,
    /// How many descriptors it has open without connections.
    idle_descriptors: usize,
}

/// What a server printed at its end: its counters, summed over its workers, and the reports of their shutdown.
#[derive(Debug)]
pub(crate) struct Totals {
    counters: HashMap<String, u64>,
    reports: Vec<String>,
}

impl Server {
    pub(crate) fn start(program: &Program, arguments: &[&str]) -> Self {
        let mut command = Command::new(program.path);
        command.args(arguments).stdout(Stdio::piped());
        Self::of(program, command.spawn().expect("the server runs"))
    }

    /// Starts a server with a limit of descriptors.
    pub(crate) fn start_with_descriptors(program: &Program, descriptors: usize, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &descriptors.to_string(), program.path]);
        command.args(arguments).stdout(Stdio::piped());
        Self::of(program, command.spawn().expect("the server runs"))
    }

    /// Waits until it listens. Its output is piped.
    pub(crate) fn of(program: &Program, mut child: Child) -> Self {
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut preamble = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).expect("its first lines"), 0, "it ended: {preamble}");
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                break address.parse().expect("an address");
            }
            preamble += &line;
        };
        let protocol = program.protocol;
        let mut server = Self { child, stdout, protocol, address, preamble, idle_descriptors: 0 };
        server.idle_descriptors = server.descriptors();
        server
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.protocol, self.address)
    }

    pub(crate) fn connect_many(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Waits until this number of connections is queued.
    #[track_caller]
    pub(crate) fn await_queued(&self, count: usize) {
        eventually("the expected number is queued", || {
            let rows = procfs::net::tcp().expect("the table can be read").into_iter();
            let listeners =
                rows.filter(|row| row.state == TcpState::Listen && row.local_address == self.address);
            listeners.map(|row| row.rx_queue as usize).sum::<usize>() == count
        });
    }

    /// Waits until this number of connections is open.
    #[track_caller]
    pub(crate) fn await_connections(&self, count: usize) {
        eventually("the expected number is accepted", || {
            self.descriptors().checked_sub(self.idle_descriptors) == Some(count)
        });
    }

    /// Returns how many connections it can have with this limit of descriptors. Inherited descriptors above the limit do
    /// not count.
    pub(crate) fn room_below(&self, limit: usize) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the server runs");
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        limit - numbers.filter(|number: &usize| *number < limit).count()
    }

    /// Changes its soft limit of descriptors while it runs.
    pub(crate) fn limit_descriptors(&self, descriptors: u64) {
        let pid = rustix::process::Pid::from_raw(self.pid().as_raw());
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).expect("our child");
    }

    /// Asserts that the server sleeps while it has nothing to do.
    #[track_caller]
    pub(crate) fn assert_sleeps(&mut self) {
        let switches = |tasks: &[Task]| -> u64 {
            let statuses = tasks.iter().filter_map(|task| task.status().ok());
            let of = |count: Option<u64>| count.unwrap_or(0);
            statuses
                .map(|of_task| of(of_task.voluntary_ctxt_switches) + of(of_task.nonvoluntary_ctxt_switches))
                .sum()
        };
        let (before, mut seen_running) = (switches(&self.tasks()), 0);
        for _ in 0..30 {
            thread::sleep(Duration::from_millis(10));
            let is_running = |task: &Task| task.stat().is_ok_and(|stat| stat.state == 'R');
            seen_running += usize::from(self.tasks().iter().any(is_running));
        }
        let switches = switches(&self.tasks()) - before;
        assert!(switches < 50, "its threads woke {switches} times with nothing to do");
        // A thread that spins never blocks: it is seen running instead.
        assert!(seen_running < 10, "it was running in {seen_running} of 30 samples with nothing to do");
        assert!(self.child.try_wait().expect("it is our child").is_none(), "it ended");
    }

    fn tasks(&self) -> Vec<Task> {
        let process = Process::new(self.pid().as_raw()).expect("the server runs");
        process.tasks().expect("it has threads").filter_map(Result::ok).collect()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the server runs").count()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a process id is small"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the server runs");
    }

    /// Stops it, and waits until every thread is: a signal takes effect a little later.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let is_stopped = |task: &Task| task.stat().is_ok_and(|stat| stat.state == 'T');
        eventually("every thread is stopped", || self.tasks().iter().all(is_stopped));
    }

    /// Waits until all connections are closed, so that no descriptor is leaked, and ends it.
    #[track_caller]
    pub(crate) fn end(self) -> Totals {
        self.await_queued(0);
        self.await_connections(0);
        self.signal(Signal::SIGTERM);
        self.join()
    }

    /// Waits for the end of a server that was signalled.
    #[track_caller]
    pub(crate) fn join(mut self) -> Totals {
        eventually("the server ends", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).unwrap();
        Totals::parse(&printed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Totals {
    /// From lines such as `passes 3, attempts 2, delivered 2, per pass [1: 2], None`.
    fn parse(printed: &str) -> Self {
        let (mut counters, mut reports) = (HashMap::new(), Vec::new());
        for line in printed.lines() {
            let (counts, rest) = line.split_once("per pass [").expect("the histogram is last");
            reports.push(rest.split_once("], ").expect("a report, or none").1.to_owned());
            for (name, value) in counts.split(", ").filter_map(|counter| counter.split_once(' ')) {
                *counters.entry(name.to_owned()).or_default() += value.parse::<u64>().expect("a number");
            }
        }
        assert!(!reports.is_empty(), "the server printed its counters");
        Self { counters, reports }
    }

    /// Returns a counter by its name; one that is not printed is 0.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Asserts that the server accepted these connections, and did not spin.
    #[track_caller]
    pub(crate) fn assert_accepted(&self, delivered: usize, refused: usize) {
        let counted = (self.count("delivered"), self.count("refused"));
        assert_eq!(counted, (delivered as u64, refused as u64), "{self:?}");
        assert_eq!(self.count("empty"), 0, "an accept found the queue empty: {self:?}");
        // A server that spins makes a hundred thousand passes in the time of a test.
        let bound = 20 * (delivered + refused) * self.reports.len();
        assert!(self.count("passes") < bound as u64, "{self:?}");
    }

    /// Asserts that the end of the service lost no connection.
    #[track_caller]
    pub(crate) fn assert_none_lost(&self) {
        for report in &self.reports {
            assert!(report.contains("refused: 0,") && report.contains("abandoned: Some(0)"), "{report}");
        }
    }
}
