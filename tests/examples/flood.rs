//! A server with ten places, flooded by two hundred clients of whom half quit.

use std::env;
use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::{Client, Heard, crowd};
use crate::eventually;
use crate::server::Server;

const LIMIT: usize = 10;
const CROWD: usize = 200;

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

    /// Everything that a pausing server owes: the queue is the waiting room, and nobody in it is forgotten.
    fn pause(self) {
        let mut server = self.start(&["--when-full", "pause"]);
        let watch = server.watch();
        let mut served = fill(&server);
        let mut waiting = crowd(&server.address, CROWD);
        server.await_queued(u32::try_from(CROWD).expect("small"));
        server.assert_sleeps();
        assert_eq!(server.connections(), LIMIT, "as many are served as may be");

        while !waiting.is_empty() {
            assert_silent(&waiting);
            served.into_iter().for_each(Client::reset);
            // No new client comes: those who are queued must be served all the same.
            served = await_answers(&mut waiting, LIMIT);
        }
        served.into_iter().for_each(Client::reset);
        let newcomer = Client::ask(&server.address);
        newcomer.await_echo();
        newcomer.reset();

        server.await_rest();
        assert_eq!(watch.highest(), LIMIT, "never more than the limit in service");
        let words = server.end();
        let all = (LIMIT + CROWD + 1) as u64;
        assert_eq!((words.count("delivered"), words.count("refused")), (all, 0));
        assert_few_passes(words.count("passes"), all, self.workers);
    }

    /// Everything that a shedding server owes: who finds it full is told so at once, and none is left queued.
    fn shed(self, how: &[&str]) {
        let mut server = self.start(how);
        let watch = server.watch();
        let served = fill(&server);
        let refused = crowd(&server.address, CROWD);
        refused.iter().for_each(Client::await_end);
        server.await_queued(0);
        server.assert_sleeps();
        eventually("only those are left who are served", || server.connections() == LIMIT);

        refused.into_iter().for_each(Client::reset);
        served.into_iter().for_each(Client::reset);
        eventually("the places are free", || server.connections() == 0);
        // The last place is given back a moment after its descriptor is closed: a newcomer may be that early.
        let mut newcomers = 0;
        eventually("a newcomer is answered", || {
            newcomers += 1;
            let newcomer = Client::ask(&server.address);
            let mut heard = Heard::Nothing;
            eventually("a newcomer hears something", || {
                heard = newcomer.listen();
                heard != Heard::Nothing
            });
            newcomer.reset();
            heard == Heard::Echo
        });

        server.await_rest();
        // Each worker may have one in its hands that it is about to refuse.
        assert!(watch.highest() <= LIMIT + self.workers, "{} at once", watch.highest());
        let words = server.end();
        let (delivered, refused) = (words.count("delivered"), words.count("refused"));
        let all = (LIMIT + CROWD) as u64 + newcomers;
        assert_eq!((delivered, refused), (LIMIT as u64 + 1, all - LIMIT as u64 - 1));
        assert_few_passes(words.count("passes"), all, self.workers);
    }
}

/// Takes all the places.
fn fill(server: &Server) -> Vec<Client> {
    let served: Vec<_> = (0..LIMIT).map(|_| Client::ask(&server.address)).collect();
    served.iter().for_each(Client::await_echo);
    served
}

/// Waits until `places` of the waiting are answered, or all if they are fewer, and takes them out.
#[track_caller]
pub(crate) fn await_answers(waiting: &mut Vec<Client>, places: usize) -> Vec<Client> {
    let expected = places.min(waiting.len());
    let mut served = Vec::new();
    eventually("as many as there are places are answered", || {
        let (answered, silent) = waiting.drain(..).partition(|client| match client.listen() {
            Heard::Echo => true,
            Heard::Nothing => false,
            Heard::End => panic!("a client that should wait its turn is refused"),
        });
        *waiting = silent;
        served.extend::<Vec<_>>(answered);
        assert!(served.len() <= places, "more are served than there are places");
        served.len() == expected
    });
    served
}

#[track_caller]
pub(crate) fn assert_silent(waiting: &[Client]) {
    let heard = waiting.iter().map(Client::listen).find(|heard| *heard != Heard::Nothing);
    assert_eq!(heard, None, "while there is no place, those who wait hear nothing");
}

/// A spinning server makes a hundred thousand passes in the time that it is watched here.
#[track_caller]
pub(crate) fn assert_few_passes(passes: u64, connections: u64, workers: usize) {
    let bound = 20 * connections * workers as u64;
    assert!(passes < bound, "{passes} passes for {connections} connections and {workers} workers");
}

/// Whether there is an IPv6 loopback; says so if not.
pub(crate) fn has_ipv6() -> bool {
    let bound = TcpListener::bind("[::1]:0");
    if let Err(error) = &bound {
        eprintln!("skipped: this machine has no IPv6 loopback: {error}");
    }
    bound.is_ok()
}

/// A path that no other test has.
pub(crate) fn unix_address() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = env::temp_dir().join(format!("echo-{}-{number}.socket", process::id()));
    format!("unix:{}", path.display())
}

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

#[test]
fn level_pause_serves_all_in_turn() {
    Setup { listen: V4, trigger: "level", workers: 1 }.pause();
}

#[test]
fn edge_pause_serves_all_in_turn() {
    Setup { listen: V4, trigger: "edge", workers: 1 }.pause();
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
fn a_last_word_refuses_at_once_and_recovers() {
    let how = ["--when-full", "shed", "--refusal", "busy, come back later\n"];
    Setup { listen: V4, trigger: "edge", workers: 1 }.shed(&how);
}

#[test]
fn it_is_the_same_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    Setup { listen: V6, trigger: "level", workers: 1 }.pause();
    Setup { listen: V6, trigger: "edge", workers: 1 }.shed(&["--when-full", "reset"]);
}

#[test]
fn it_is_the_same_over_unix_sockets() {
    for trigger in ["level", "edge"] {
        Setup { listen: &unix_address(), trigger, workers: 1 }.pause();
        Setup { listen: &unix_address(), trigger, workers: 1 }.shed(&["--when-full", "shed"]);
    }
}

#[test]
fn two_level_triggered_workers_share_one_limit() {
    Setup { listen: V4, trigger: "level", workers: 2 }.pause();
    Setup { listen: V4, trigger: "level", workers: 2 }.shed(&["--when-full", "shed"]);
}

#[test]
fn two_edge_triggered_workers_share_one_limit() {
    Setup { listen: V4, trigger: "edge", workers: 2 }.pause();
    Setup { listen: V4, trigger: "edge", workers: 2 }.shed(&["--when-full", "reset"]);
}

#[test]
fn two_exclusive_workers_share_one_limit() {
    Setup { listen: V4, trigger: "exclusive", workers: 2 }.pause();
    Setup { listen: V4, trigger: "exclusive", workers: 2 }.shed(&["--when-full", "shed"]);
}

#[test]
fn two_workers_share_a_unix_listener() {
    Setup { listen: &unix_address(), trigger: "edge", workers: 2 }.pause();
    Setup { listen: &unix_address(), trigger: "level", workers: 2 }.pause();
    Setup { listen: &unix_address(), trigger: "exclusive", workers: 2 }.pause();
}
