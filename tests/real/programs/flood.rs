//! A server with ten permits, and two hundred clients of which half quit.

use std::env;
use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::{Client, Received, connect_clients};
use crate::eventually;
use crate::server::Server;

const LIMIT: usize = 10;
const CLIENTS: usize = 200;

#[derive(Clone, Copy)]
struct Setup<'a> {
    listen: &'a str,
    trigger: &'a str,
    workers: usize,
}

impl Setup<'_> {
    fn start(&self, when_full: &[&str]) -> Server {
        let (limit, workers) = (LIMIT.to_string(), self.workers.to_string());
        let mut arguments = vec!["--trigger", self.trigger, "--limit", &limit, "--workers", &workers];
        arguments.extend(when_full);
        Server::start(self.listen, &arguments)
    }

    /// With a gate that waits: connections stay in the accept queue, and all of them are served.
    fn wait(self) {
        let mut server = self.start(&["--when-full", "wait"]);
        let peak = server.record_peak();
        let mut served = fill(&server);
        let mut waiting = connect_clients(&server.address, CLIENTS);
        server.await_queued(u32::try_from(CLIENTS).expect("small"));
        server.assert_sleeps();
        assert_eq!(server.connections(), LIMIT, "the limit is reached");

        while !waiting.is_empty() {
            assert_silent(&waiting);
            served.into_iter().for_each(Client::reset);
            // Without a further arrival, the queued ones must be served.
            served = await_answers(&mut waiting, LIMIT);
        }
        served.into_iter().for_each(Client::reset);
        let client = Client::ask(&server.address);
        client.await_echo();
        client.reset();

        server.await_idle();
        assert_eq!(peak.highest(), LIMIT, "the limit is never exceeded");
        let totals = server.end();
        let all = (LIMIT + CLIENTS + 1) as u64;
        assert_eq!((totals.count("delivered"), totals.count("refused")), (all, 0));
        assert_few_passes(totals.count("passes"), all, self.workers);
    }

    /// With a gate that sheds: further connections are refused at once, and none stays queued.
    fn shed(self, how: &[&str]) {
        let mut server = self.start(how);
        let peak = server.record_peak();
        let served = fill(&server);
        let refused = connect_clients(&server.address, CLIENTS);
        refused.iter().for_each(Client::await_end);
        server.await_queued(0);
        server.assert_sleeps();
        eventually("only served connections are open", || server.connections() == LIMIT);

        refused.into_iter().for_each(Client::reset);
        served.into_iter().for_each(Client::reset);
        eventually("all connections are closed", || server.connections() == 0);
        // A permit is released a moment after its descriptor is closed: a client may be refused in between.
        let mut later = 0;
        eventually("a later client is answered", || {
            later += 1;
            let client = Client::ask(&server.address);
            let mut received = Received::Nothing;
            eventually("a later client receives something", || {
                received = client.receive();
                received != Received::Nothing
            });
            client.reset();
            received == Received::Echo
        });

        server.await_idle();
        // Each worker may hold one that it is about to refuse.
        assert!(peak.highest() <= LIMIT + self.workers, "{} at once", peak.highest());
        let totals = server.end();
        let (delivered, refused) = (totals.count("delivered"), totals.count("refused"));
        let all = (LIMIT + CLIENTS) as u64 + later;
        assert_eq!((delivered, refused), (LIMIT as u64 + 1, all - LIMIT as u64 - 1));
        assert_few_passes(totals.count("passes"), all, self.workers);
    }
}

/// Takes all permits.
fn fill(server: &Server) -> Vec<Client> {
    let served: Vec<_> = (0..LIMIT).map(|_| Client::ask(&server.address)).collect();
    served.iter().for_each(Client::await_echo);
    served
}

/// Waits until `capacity` of the waiting clients are answered, or all if they are fewer. Removes and returns them.
#[track_caller]
pub(crate) fn await_answers(waiting: &mut Vec<Client>, capacity: usize) -> Vec<Client> {
    let expected = capacity.min(waiting.len());
    let mut served = Vec::new();
    eventually("as many as there are permits are answered", || {
        let (answered, silent) = waiting.drain(..).partition(|client| match client.receive() {
            Received::Echo => true,
            Received::Nothing => false,
            Received::End => panic!("a client that should wait is refused"),
        });
        *waiting = silent;
        served.extend::<Vec<_>>(answered);
        assert!(served.len() <= capacity, "the limit is exceeded");
        served.len() == expected
    });
    served
}

#[track_caller]
pub(crate) fn assert_silent(waiting: &[Client]) {
    let received = waiting.iter().map(Client::receive).find(|received| *received != Received::Nothing);
    assert_eq!(received, None, "while the server is full, waiting clients receive nothing");
}

/// A server that spins makes a hundred thousand passes in the time of a test.
#[track_caller]
pub(crate) fn assert_few_passes(passes: u64, connections: u64, workers: usize) {
    let bound = 20 * connections * workers as u64;
    assert!(passes < bound, "{passes} passes for {connections} connections and {workers} workers");
}

/// Returns whether there is an IPv6 loopback; prints if not.
pub(crate) fn has_ipv6() -> bool {
    let bound = TcpListener::bind("[::1]:0");
    if let Err(error) = &bound {
        eprintln!("skipped: this machine has no IPv6 loopback: {error}");
    }
    bound.is_ok()
}

/// Returns a path of its own for each test.
pub(crate) fn unix_address() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = env::temp_dir().join(format!("echo-{}-{number}.socket", process::id()));
    format!("unix:{}", path.display())
}

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

#[test]
fn level_wait_serves_all_in_turn() {
    Setup { listen: V4, trigger: "level", workers: 1 }.wait();
}

#[test]
fn edge_wait_serves_all_in_turn() {
    Setup { listen: V4, trigger: "edge", workers: 1 }.wait();
}

#[test]
fn level_shed_refuses_at_once_and_recovers() {
    Setup { listen: V4, trigger: "level", workers: 1 }.shed(&["--when-full", "shed"]);
}

#[test]
fn edge_shed_refuses_at_once_and_recovers() {
    Setup { listen: V4, trigger: "edge", workers: 1 }.shed(&["--when-full", "shed"]);
}

#[test]
fn level_reset_refuses_at_once_and_recovers() {
    Setup { listen: V4, trigger: "level", workers: 1 }.shed(&["--when-full", "reset"]);
}

#[test]
fn edge_reset_refuses_at_once_and_recovers() {
    Setup { listen: V4, trigger: "edge", workers: 1 }.shed(&["--when-full", "reset"]);
}

#[test]
fn message_refuses_at_once_and_recovers() {
    let how = ["--when-full", "shed", "--refusal", "busy, try again later\n"];
    Setup { listen: V4, trigger: "edge", workers: 1 }.shed(&how);
}

#[test]
fn ipv6_waits_and_sheds() {
    if !has_ipv6() {
        return;
    }
    Setup { listen: V6, trigger: "level", workers: 1 }.wait();
    Setup { listen: V6, trigger: "edge", workers: 1 }.shed(&["--when-full", "reset"]);
}

#[test]
fn unix_sockets_wait_and_shed() {
    for trigger in ["level", "edge"] {
        Setup { listen: &unix_address(), trigger, workers: 1 }.wait();
        Setup { listen: &unix_address(), trigger, workers: 1 }.shed(&["--when-full", "shed"]);
    }
}

#[test]
fn two_level_workers_share_one_limit() {
    Setup { listen: V4, trigger: "level", workers: 2 }.wait();
    Setup { listen: V4, trigger: "level", workers: 2 }.shed(&["--when-full", "shed"]);
}

#[test]
fn two_edge_workers_share_one_limit() {
    Setup { listen: V4, trigger: "edge", workers: 2 }.wait();
    Setup { listen: V4, trigger: "edge", workers: 2 }.shed(&["--when-full", "reset"]);
}

#[test]
fn two_exclusive_workers_share_one_limit() {
    Setup { listen: V4, trigger: "exclusive", workers: 2 }.wait();
    Setup { listen: V4, trigger: "exclusive", workers: 2 }.shed(&["--when-full", "shed"]);
}

#[test]
fn two_workers_share_a_unix_listener() {
    Setup { listen: &unix_address(), trigger: "edge", workers: 2 }.wait();
    Setup { listen: &unix_address(), trigger: "level", workers: 2 }.wait();
    Setup { listen: &unix_address(), trigger: "exclusive", workers: 2 }.wait();
}
