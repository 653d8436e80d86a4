//! The echo servers on other event loops, with a full gate and clients that quit.

use crate::client::{Client, connect_clients};
use crate::exhausted::{recovers_by_timer, serves_in_turns};
use crate::flood::{assert_few_passes, assert_silent, await_answers, unix_address};
use crate::server::{Server, Totals};

const LIMIT: usize = 10;
const CLIENTS: usize = 200;
const LATER: usize = 5;
const TCP: &str = "127.0.0.1:0";

/// The server is full, clients connect of which half quit, one permit is released, further clients connect. Every client that
/// stays is answered as permits are released, and the server does not spin.
fn fills_and_recovers(example: &'static str, listen: &str, trigger: &str, budget: &str) {
    let limit = LIMIT.to_string();
    let arguments = ["--limit", &limit, "--trigger", trigger, "--budget", budget];
    let mut server = Server::start_example(example, listen, &arguments);
    let peak = server.record_peak();
    let mut served: Vec<_> = (0..LIMIT).map(|_| Client::ask(&server.address)).collect();
    served.iter().for_each(Client::await_echo);
    let mut waiting = connect_clients(&server.address, CLIENTS);
    server.await_queued(u32::try_from(CLIENTS).expect("small"));
    server.assert_sleeps();
    assert_silent(&waiting);

    served.pop().expect("ten").reset();
    served.extend(await_answers(&mut waiting, 1));
    let later: Vec<_> = (0..LATER).map(|_| Client::ask(&server.address)).collect();
    while !waiting.is_empty() {
        assert_silent(&waiting);
        assert_silent(&later);
        served.into_iter().for_each(Client::reset);
        // Permits that are left go to the later clients.
        served = await_answers(&mut waiting, LIMIT);
    }
    served.into_iter().for_each(Client::reset);
    later.iter().for_each(Client::await_echo);
    later.into_iter().for_each(Client::reset);

    server.await_idle();
    assert!(peak.highest() <= LIMIT, "the limit is never exceeded");
    let totals = server.end();
    let all = (LIMIT + CLIENTS + LATER) as u64;
    assert_eq!((totals.count("delivered"), totals.count("refused")), (all, 0));
    assert_no_spin(&totals, all);
}

fn assert_no_spin(totals: &Totals, connections: u64) {
    assert_few_passes(totals.count("passes"), connections, 1);
    assert_eq!(totals.count("empty"), 0, "no accept finds the queue empty");
    // Counted only by an acceptor on an inner epoll: a wake-up per connection and per released permit.
    let idle_polls = totals.count("idle_polls");
    assert!(idle_polls <= 4 * connections, "it was idle {idle_polls} times");
}

/// At the limit, further connections are closed at once.
fn sheds(example: &'static str, listen: &str, trigger: &str) {
    let limit = LIMIT.to_string();
    let arguments = ["--limit", &limit, "--trigger", trigger, "--when-full", "shed"];
    let mut server = Server::start_example(example, listen, &arguments);
    let served: Vec<_> = (0..LIMIT).map(|_| Client::ask(&server.address)).collect();
    served.iter().for_each(Client::await_echo);
    let refused = connect_clients(&server.address, CLIENTS);
    refused.iter().for_each(Client::await_end);
    server.await_queued(0);
    server.assert_sleeps();
    refused.into_iter().for_each(Client::reset);
    served.into_iter().for_each(Client::reset);
    server.await_idle();
    let totals = server.end();
    assert_eq!((totals.count("delivered"), totals.count("refused")), (LIMIT as u64, CLIENTS as u64));
    assert_no_spin(&totals, (LIMIT + CLIENTS) as u64);
}

/// Every trigger, with a budget that a queue exceeds and one that it does not.
fn every_trigger(example: &'static str) {
    for trigger in ["level", "edge", "exclusive"] {
        fills_and_recovers(example, TCP, trigger, "64");
        fills_and_recovers(example, TCP, trigger, "3");
        fills_and_recovers(example, &unix_address(), trigger, "3");
        sheds(example, TCP, trigger);
    }
}

#[test]
fn mio_hosts() {
    every_trigger("hosted_mio");
}

#[test]
fn polling_hosts() {
    every_trigger("hosted_polling");
}

#[test]
fn tokio_hosts() {
    every_trigger("hosted_tokio");
}

#[test]
fn mio_hosts_without_descriptors() {
    serves_in_turns("hosted_mio", TCP, &["--trigger", "level"]);
    recovers_by_timer("hosted_mio", "edge");
}

#[test]
fn polling_hosts_without_descriptors() {
    serves_in_turns("hosted_polling", TCP, &["--trigger", "edge"]);
    recovers_by_timer("hosted_polling", "level");
}

#[test]
fn tokio_hosts_without_descriptors() {
    for trigger in ["level", "edge", "exclusive"] {
        serves_in_turns("hosted_tokio", TCP, &["--trigger", trigger]);
        recovers_by_timer("hosted_tokio", trigger);
    }
}
