//! A server without a limit that runs out of descriptors.

use crate::client::{Client, connect_clients};
use crate::flood::{assert_few_passes, assert_silent, await_answers, has_ipv6, unix_address};
use crate::server::Server;

const CLIENTS: usize = 200;
/// A few more than the server itself needs.
const DESCRIPTORS: usize = 32;

/// It must not spin, exit or strand, and must serve on when descriptors become free, without a further arrival.
fn serves_in_turns(listen: &str, arguments: &[&str]) {
    let mut server = Server::start_with_descriptors(DESCRIPTORS, listen, arguments);
    let capacity = server.room_below(DESCRIPTORS);
    let mut waiting = connect_clients(&server.address, CLIENTS);
    let mut served = await_answers(&mut waiting, capacity);
    assert!(!waiting.is_empty(), "descriptors have run out");
    server.assert_sleeps();

    while !waiting.is_empty() {
        assert_silent(&waiting);
        served.into_iter().for_each(Client::reset);
        served = await_answers(&mut waiting, capacity);
    }
    served.into_iter().for_each(Client::reset);
    let client = Client::ask(&server.address);
    client.await_echo();
    client.reset();

    server.await_idle();
    let totals = server.end();
    let all = CLIENTS as u64 + 1;
    assert_eq!((totals.count("delivered"), totals.count("refused")), (all, 0));
    assert_ne!(totals.count("exhausted"), 0, "descriptors run out");
    assert_few_passes(totals.count("passes"), all, 2);
}

/// No descriptor is left and none can be closed: only the timer retries.
fn recovers_by_timer(trigger: &str) {
    let mut server = Server::start("127.0.0.1:0", &["--trigger", trigger]);
    server.limit_descriptors(3);
    let mut waiting = connect_clients(&server.address, CLIENTS);
    server.assert_sleeps();
    assert_silent(&waiting);
    server.await_queued(u32::try_from(CLIENTS).expect("small"));

    server.limit_descriptors(1024);
    let all = waiting.len();
    await_answers(&mut waiting, all).into_iter().for_each(Client::reset);
    server.await_idle();
    assert_eq!(server.end().count("delivered"), CLIENTS as u64);
}

#[test]
fn level_triggered_serves_by_and_by() {
    serves_in_turns("127.0.0.1:0", &["--trigger", "level"]);
}

#[test]
fn edge_triggered_serves_by_and_by() {
    serves_in_turns("127.0.0.1:0", &["--trigger", "edge"]);
}

#[test]
fn unix_sockets_serve_by_and_by() {
    serves_in_turns(&unix_address(), &["--trigger", "level"]);
    serves_in_turns(&unix_address(), &["--trigger", "edge"]);
}

#[test]
fn two_workers_serve_by_and_by() {
    serves_in_turns("127.0.0.1:0", &["--trigger", "level", "--workers", "2"]);
    serves_in_turns("127.0.0.1:0", &["--trigger", "edge", "--workers", "2"]);
}

#[test]
fn exclusive_workers_serve_by_and_by() {
    serves_in_turns("127.0.0.1:0", &["--trigger", "exclusive", "--workers", "2"]);
    serves_in_turns(&unix_address(), &["--trigger", "exclusive", "--workers", "3"]);
}

#[test]
fn exclusive_comes_back_by_itself() {
    recovers_by_timer("exclusive");
}

#[test]
fn ipv6_serves_by_and_by() {
    if has_ipv6() {
        serves_in_turns("[::1]:0", &["--trigger", "edge"]);
    }
}

#[test]
fn limit_that_is_not_reached_serves_in_turns() {
    serves_in_turns("127.0.0.1:0", &["--trigger", "level", "--limit", "1000"]);
    serves_in_turns("127.0.0.1:0", &["--trigger", "edge", "--limit", "1000", "--workers", "2"]);
}

#[test]
fn level_triggered_comes_back_by_itself() {
    recovers_by_timer("level");
}

#[test]
fn edge_triggered_comes_back_by_itself() {
    recovers_by_timer("edge");
}
