//! A server without limit that runs out of descriptors.

use crate::client::{Client, crowd};
use crate::flood::{assert_few_passes, assert_silent, await_answers, has_ipv6, unix_address};
use crate::server::Server;

const CROWD: usize = 200;
/// A little more than the server needs for itself.
const DESCRIPTORS: usize = 32;

/// It must not spin, exit or strand, and serve on when descriptors are free, with no new client needed.
pub(crate) fn serves_by_and_by(example: &'static str, listen: &str, arguments: &[&str]) {
    let mut server = Server::start_with_descriptors(example, DESCRIPTORS, listen, arguments);
    let places = server.room_below(DESCRIPTORS);
    let mut waiting = crowd(&server.address, CROWD);
    let mut served = await_answers(&mut waiting, places);
    assert!(!waiting.is_empty(), "descriptors have run out");
    server.assert_sleeps();

    while !waiting.is_empty() {
        assert_silent(&waiting);
        served.into_iter().for_each(Client::reset);
        served = await_answers(&mut waiting, places);
    }
    served.into_iter().for_each(Client::reset);
    let newcomer = Client::ask(&server.address);
    newcomer.await_echo();
    newcomer.reset();

    server.await_rest();
    let words = server.end();
    let all = CROWD as u64 + 1;
    assert_eq!((words.count("delivered"), words.count("refused")), (all, 0));
    assert_ne!(words.count("exhausted"), 0, "it did run out");
    assert_few_passes(words.count("passes"), all, 2);
}

/// Not one descriptor is left, so that nobody can go and give one back: time alone must bring it on.
pub(crate) fn comes_back_by_itself(example: &'static str, trigger: &str) {
    let mut server = Server::start_example(example, "127.0.0.1:0", &["--trigger", trigger]);
    server.limit_descriptors(3);
    let mut waiting = crowd(&server.address, CROWD);
    server.assert_sleeps();
    assert_silent(&waiting);
    server.await_queued(u32::try_from(CROWD).expect("small"));

    server.limit_descriptors(1024);
    let everybody = waiting.len();
    await_answers(&mut waiting, everybody).into_iter().for_each(Client::reset);
    server.await_rest();
    assert_eq!(server.end().count("delivered"), CROWD as u64);
}

#[test]
fn level_triggered_serves_by_and_by() {
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "level"]);
}

#[test]
fn edge_triggered_serves_by_and_by() {
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "edge"]);
}

#[test]
fn unix_sockets_serve_by_and_by() {
    serves_by_and_by("echo", &unix_address(), &["--trigger", "level"]);
    serves_by_and_by("echo", &unix_address(), &["--trigger", "edge"]);
}

#[test]
fn two_workers_serve_by_and_by() {
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "level", "--workers", "2"]);
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "edge", "--workers", "2"]);
}

#[test]
fn exclusive_workers_serve_by_and_by() {
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "exclusive", "--workers", "2"]);
    serves_by_and_by("echo", &unix_address(), &["--trigger", "exclusive", "--workers", "3"]);
}

#[test]
fn exclusive_comes_back_by_itself() {
    comes_back_by_itself("echo", "exclusive");
}

#[test]
fn ipv6_serves_by_and_by() {
    if has_ipv6() {
        serves_by_and_by("echo", "[::1]:0", &["--trigger", "edge"]);
    }
}

#[test]
fn a_limit_that_is_never_reached_changes_nothing() {
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "level", "--limit", "1000"]);
    serves_by_and_by("echo", "127.0.0.1:0", &["--trigger", "edge", "--limit", "1000", "--workers", "2"]);
}

#[test]
fn level_triggered_comes_back_by_itself() {
    comes_back_by_itself("echo", "level");
}

#[test]
fn edge_triggered_comes_back_by_itself() {
    comes_back_by_itself("echo", "edge");
}
