//! The echo servers on other people's event loops, in the scene of the outage.

use crate::client::{Client, crowd};
use crate::exhausted::{comes_back_by_itself, serves_by_and_by};
use crate::flood::{assert_few_passes, assert_silent, await_answers, unix_address};
use crate::server::{LastWords, Server};

const LIMIT: usize = 10;
const CROWD: usize = 200;
const NEWCOMERS: usize = 5;
const TCP: &str = "127.0.0.1:0";

/// All places are taken, a crowd comes of whom half quit, a place is freed, newcomers come. Everyone who is
/// still there is answered, with nothing to help but the places that are freed, and nobody spins.
fn outage(example: &'static str, listen: &str, trigger: &str, budget: &str) {
    let limit = LIMIT.to_string();
    let arguments = ["--limit", &limit, "--trigger", trigger, "--budget", budget];
    let mut server = Server::start_example(example, listen, &arguments);
    let watch = server.watch();
    let mut served: Vec<_> = (0..LIMIT).map(|_| Client::ask(&server.address)).collect();
    served.iter().for_each(Client::await_echo);
    let mut waiting = crowd(&server.address, CROWD);
    server.await_queued(u32::try_from(CROWD).expect("small"));
    server.assert_sleeps();
    assert_silent(&waiting);

    served.pop().expect("ten").reset();
    served.extend(await_answers(&mut waiting, 1));
    let newcomers: Vec<_> = (0..NEWCOMERS).map(|_| Client::ask(&server.address)).collect();
    while !waiting.is_empty() {
        assert_silent(&waiting);
        assert_silent(&newcomers);
        served.into_iter().for_each(Client::reset);
        // What is left of the places goes to newcomers.
        served = await_answers(&mut waiting, LIMIT);
    }
    served.into_iter().for_each(Client::reset);
    newcomers.iter().for_each(Client::await_echo);
    newcomers.into_iter().for_each(Client::reset);

    server.await_rest();
    assert!(watch.highest() <= LIMIT, "never more than the limit in service");
    let words = server.end();
    let all = (LIMIT + CROWD + NEWCOMERS) as u64;
    assert_eq!((words.count("delivered"), words.count("refused")), (all, 0));
    assert_no_spin(&words, all);
}

fn assert_no_spin(words: &LastWords, connections: u64) {
    assert_few_passes(words.count("passes"), connections, 1);
    assert_eq!(words.count("empty"), 0, "no accept found the queue empty");
    // Only a host that has an epoll inside counts these. A wake-up for each connection and each place that
    // comes back.
    assert!(words.count("sleeps") <= 4 * connections, "it slept {} times", words.count("sleeps"));
}

/// Who comes when it is full is closed at once.
fn sheds(example: &'static str, listen: &str, trigger: &str) {
    let limit = LIMIT.to_string();
    let arguments = ["--limit", &limit, "--trigger", trigger, "--when-full", "shed"];
    let mut server = Server::start_example(example, listen, &arguments);
    let served: Vec<_> = (0..LIMIT).map(|_| Client::ask(&server.address)).collect();
    served.iter().for_each(Client::await_echo);
    let refused = crowd(&server.address, CROWD);
    refused.iter().for_each(Client::await_end);
    server.await_queued(0);
    server.assert_sleeps();
    refused.into_iter().for_each(Client::reset);
    served.into_iter().for_each(Client::reset);
    server.await_rest();
    let words = server.end();
    assert_eq!((words.count("delivered"), words.count("refused")), (LIMIT as u64, CROWD as u64));
    assert_no_spin(&words, (LIMIT + CROWD) as u64);
}

/// Every way to be hosted, on every trigger, with a budget that a queue exceeds and one that it does not.
fn everything(example: &'static str) {
    for trigger in ["level", "edge", "exclusive"] {
        outage(example, TCP, trigger, "64");
        outage(example, TCP, trigger, "3");
        outage(example, &unix_address(), trigger, "3");
        sheds(example, TCP, trigger);
    }
}

#[test]
fn mio_hosts() {
    everything("hosted_mio");
}

#[test]
fn polling_hosts() {
    everything("hosted_polling");
}

#[test]
fn tokio_hosts() {
    everything("hosted_tokio");
}

#[test]
fn mio_hosts_without_descriptors() {
    serves_by_and_by("hosted_mio", TCP, &["--trigger", "level"]);
    comes_back_by_itself("hosted_mio", "edge");
}

#[test]
fn polling_hosts_without_descriptors() {
    serves_by_and_by("hosted_polling", TCP, &["--trigger", "edge"]);
    comes_back_by_itself("hosted_polling", "level");
}

#[test]
fn tokio_hosts_without_descriptors() {
    for trigger in ["level", "edge", "exclusive"] {
        serves_by_and_by("hosted_tokio", TCP, &["--trigger", trigger]);
        comes_back_by_itself("hosted_tokio", trigger);
    }
}
