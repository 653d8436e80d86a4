//! A server of the examples as a child process, and what can be observed of it.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::net::TcpState;
use procfs::process::Process;

use crate::binaries::example;
use crate::client::Address;
use crate::{BOUND, eventually};

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    pub(crate) address: Address,
    /// How many descriptors it has open without connections.
    idle_descriptors: usize,
}

/// The counters that the server printed when it ended, summed over its workers.
#[derive(Debug)]
pub(crate) struct Totals(HashMap<String, u64>);

impl Server {
    pub(crate) fn start(listen: &str, arguments: &[&str]) -> Self {
        Self::run(Command::new(example("echo")), listen, arguments)
    }

    /// Starts it with a limit of descriptors (`ulimit -n`).
    pub(crate) fn start_with_descriptors(descriptors: usize, listen: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &descriptors.to_string()]).arg(example("echo"));
        Self::run(command, listen, arguments)
    }

    fn run(mut command: Command, listen: &str, arguments: &[&str]) -> Self {
        command.args(["--listen", listen]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example runs");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let first = lines.recv_timeout(BOUND).expect("the server prints its address");
        let address = first.strip_prefix("listening on ").expect("its first line");
        let address = Address::parse(address);
        let mut server = Self { child, lines, address, idle_descriptors: 0 };
        server.idle_descriptors = server.descriptors();
        server
    }

    /// Returns the next line that it prints.
    pub(crate) fn next_line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("the server prints a line")
    }

    /// Returns how many connections it can have with this limit of descriptors. Inherited descriptors above the limit do not
    /// count.
    pub(crate) fn room_below(&self, limit: usize) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the server runs");
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        limit - numbers.filter(|number: &usize| *number < limit).count()
    }

    /// Returns how many connections it has: descriptors beyond those of an idle server.
    pub(crate) fn connections(&self) -> usize {
        self.descriptors().saturating_sub(self.idle_descriptors)
    }

    fn descriptors(&self) -> usize {
        count_descriptors(self.child.id()).expect("the server runs")
    }

    /// Returns `rx_queue` of its listener in /proc/net/tcp or tcp6; `None` for a Unix socket.
    pub(crate) fn queued(&self) -> Option<u32> {
        let Address::Tcp(address) = self.address else { return None };
        let table = if address.is_ipv4() { procfs::net::tcp() } else { procfs::net::tcp6() };
        let rows = table.expect("the table can be read");
        let listening = rows.iter().find(|row| row.state == TcpState::Listen && row.local_address == address);
        Some(listening.expect("the server listens").rx_queue)
    }

    #[track_caller]
    pub(crate) fn await_queued(&self, count: u32) {
        eventually("the expected number is queued", || self.queued().is_none_or(|queued| queued == count));
    }

    /// Waits until the queue is empty and all connections are closed: no descriptor is leaked.
    #[track_caller]
    pub(crate) fn await_idle(&self) {
        self.await_queued(0);
        eventually("it has as many descriptors as in the beginning", || {
            self.descriptors() == self.idle_descriptors
        });
    }

    /// Asserts that the server sleeps while it has nothing to do. On a busy machine a thread that was woken once may wait
    /// for its turn through several windows; one that spins never leaves one quiet.
    #[track_caller]
    pub(crate) fn assert_sleeps(&mut self) {
        let mut seen = Vec::new();
        while seen.len() < 30 {
            let (before, mut running) = (self.switches(), 0);
            for _ in 0..30 {
                thread::sleep(Duration::from_millis(10));
                running += usize::from(self.is_running());
            }
            assert!(self.child.try_wait().expect("it is our child").is_none(), "it ended");
            let switches = self.switches() - before;
            // A thread that spins never blocks: it is seen running instead.
            if switches < 50 && running < 10 {
                return;
            }
            seen.push((switches, running));
        }
        panic!("with nothing to do its threads woke, and were running in so many of 30 samples: {seen:?}");
    }

    /// Returns how often its threads have blocked or were preempted.
    fn switches(&self) -> u64 {
        let tasks = self.process().tasks().expect("it has threads").filter_map(Result::ok);
        tasks
            .filter_map(|task| task.status().ok())
            .map(|status| {
                status.voluntary_ctxt_switches.unwrap_or(0) + status.nonvoluntary_ctxt_switches.unwrap_or(0)
            })
            .sum()
    }

    fn is_running(&self) -> bool {
        let mut tasks = self.process().tasks().expect("it has threads").filter_map(Result::ok);
        tasks.any(|task| task.stat().is_ok_and(|stat| stat.state == 'R'))
    }

    fn process(&self) -> Process {
        Process::new(self.pid().as_raw()).expect("the server runs")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is small"))
    }

    /// Records the highest number of connections, until it is dropped.
    pub(crate) fn record_peak(&self) -> Peak {
        Peak::new(self.child.id(), self.idle_descriptors)
    }

    /// Changes its soft limit of descriptors while it runs.
    pub(crate) fn limit_descriptors(&self, descriptors: u64) {
        let pid = self.pid().as_raw();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: prlimit(2) writes the old limit to `limit`, and takes null for "no new limit".
        let read = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
        limit.rlim_cur = descriptors.min(limit.rlim_max);
        // SAFETY: prlimit(2) reads the new limit from `limit`, and takes null for "not the old one".
        let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!((read, set), (0, 0), "prlimit of a child");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the server runs");
    }

    /// Ends it with SIGTERM, as a service manager does.
    pub(crate) fn end(self) -> Totals {
        self.end_with(Signal::SIGTERM)
    }

    pub(crate) fn end_with(self, signal: Signal) -> Totals {
        self.signal(signal);
        self.await_end()
    }

    /// Waits for the end of a server that was signalled.
    pub(crate) fn await_end(mut self) -> Totals {
        let status = self.await_exit();
        assert!(status.success(), "it exits with 0: {status}");
        Totals::parse(self.lines.iter())
    }

    fn await_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Address::Unix(path) = &self.address {
            // Removed already, unless the server was killed.
            let _ = fs::remove_file(path);
        }
    }
}

/// The highest number of connections.
#[derive(Debug)]
pub(crate) struct Peak {
    highest: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    fn new(process: u32, idle: usize) -> Self {
        let (highest, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (highest, over) = (Arc::clone(&highest), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Acquire) {
                    let now = count_descriptors(process).unwrap_or(0).saturating_sub(idle);
                    highest.fetch_max(now, Ordering::AcqRel);
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { highest, over, thread: Some(thread) }
    }

    pub(crate) fn highest(&self) -> usize {
        self.highest.load(Ordering::Acquire)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn count_descriptors(process: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

impl Totals {
    /// From lines such as `worker 0: passes 3, attempts 2, delivered 2, per pass [1: 2]`.
    fn parse(lines: impl Iterator<Item = String>) -> Self {
        let mut sums = HashMap::new();
        for line in lines {
            let (_, counters) = line.split_once(": ").expect("a line of a worker");
            let (counters, _) = counters.split_once("per pass").expect("the histogram is last");
            for (name, value) in counters.split(", ").filter_map(|counter| counter.split_once(' ')) {
                let value: u64 = value.parse().expect("a number");
                *sums.entry(name.to_owned()).or_default() += value;
            }
        }
        Self(sums)
    }

    /// Returns a counter by its name; one that is not printed is 0.
    pub(crate) fn count(&self, name: &str) -> u64 {
        assert!(self.0.contains_key("delivered"), "the server printed its counters");
        self.0.get(name).copied().unwrap_or(0)
    }
}
