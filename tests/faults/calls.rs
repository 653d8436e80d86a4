//! How many system calls a connection costs its acceptor, besides the wait.

use epoll_acceptor::{Acceptor, EmptyCheck, Trigger};

use crate::interpose::{Call, count};
use crate::support::{Client, Door, Kind, LONG, Owner, accept_on, assert_all_served};

const ALL: [Call; 8] = [
    Call::Accept,
    Call::Add,
    Call::Modify,
    Call::Delete,
    Call::Wait,
    Call::Poll,
    Call::Getsockopt,
    Call::SetTimer,
];

/// What the calls of this thread were since.
struct Since([u64; ALL.len()]);

impl Since {
    fn now() -> Self {
        Self(ALL.map(count))
    }

    fn of(&self, call: Call) -> u64 {
        count(call) - self.0[call as usize]
    }

    /// All but the wait.
    fn others(&self) -> u64 {
        ALL.into_iter().filter(|call| *call != Call::Wait).map(|call| self.of(call)).sum()
    }
}

/// Bursts of one size, each after the other; what the calls were.
fn bursts(kind: Kind, trigger: Trigger, proof: Option<EmptyCheck>, size: usize, rounds: usize) -> Since {
    let (listener, door) = kind.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, trigger, proof);
    // The first ones teach it what to expect.
    for _ in 0..100 {
        burst(&mut owner, &mut acceptor, &door, size);
    }
    let since = Since::now();
    for _ in 0..rounds {
        burst(&mut owner, &mut acceptor, &door, size);
    }
    let counters = acceptor.counters();
    assert!(proof == Some(EmptyCheck::UntilEagain) || counters.empty == 0, "{counters}");
    // The clients' side calls none of these; the rest must not be counted.
    std::mem::forget(acceptor);
    since
}

fn burst(
    owner: &mut Owner,
    acceptor: &mut impl Acceptor<Stream: std::os::fd::AsFd>,
    door: &Door,
    size: usize,
) {
    let clients = door.connect_many(size);
    let mut kept = Vec::new();
    while kept.len() < size {
        assert_eq!(owner.wait(LONG), 1);
        for connection in acceptor.ready() {
            let connection = connection.unwrap();
            crate::support::serve(&connection);
            kept.push(connection);
        }
    }
    assert_all_served(&clients);
    clients.into_iter().for_each(Client::reset);
}

const ROUNDS: usize = 3_000;

#[test]
fn a_lone_connection_costs_a_level_triggered_acceptor_one_call_and_a_tenth_at_most() {
    for kind in [Kind::Tcp4, Kind::Tcp6, Kind::UnixStream] {
        let since = bursts(kind, Trigger::Level, None, 1, ROUNDS);
        assert_eq!(since.of(Call::Accept), ROUNDS as u64);
        assert_eq!(since.of(Call::Wait), ROUNDS as u64);
        assert_eq!(since.of(Call::Modify), 0);
        let others = since.others();
        assert!(10 * others <= 11 * ROUNDS as u64, "{kind:?}: {others} calls for {ROUNDS} connections");
    }
}

#[test]
fn a_lone_connection_costs_an_edge_triggered_acceptor_one_call_more() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let since = bursts(kind, Trigger::Edge, None, 1, ROUNDS);
        assert_eq!(since.of(Call::Accept), ROUNDS as u64);
        assert_eq!(since.of(Call::Modify), ROUNDS as u64, "once a pass");
        assert_eq!(since.of(Call::Wait), ROUNDS as u64, "what was told needlessly wakes nobody");
        let others = since.others();
        assert!(10 * others <= 21 * ROUNDS as u64, "{kind:?}: {others} calls for {ROUNDS} connections");
    }
}

#[test]
fn a_burst_costs_one_accept_a_connection_and_few_calls_a_burst() {
    const SIZE: usize = 16;
    const TIMES: usize = 100;
    for kind in [Kind::Tcp4, Kind::Mptcp] {
        for trigger in crate::support::TRIGGERS {
            let since = bursts(kind, trigger, None, SIZE, TIMES);
            assert_eq!(since.of(Call::Accept), (SIZE * TIMES) as u64);
            assert_eq!(since.of(Call::Getsockopt), TIMES as u64, "counted once");
            assert_eq!(since.of(Call::Poll), 0);
            assert!(since.of(Call::Modify) <= TIMES as u64);
            assert_eq!(since.of(Call::Wait), TIMES as u64);
        }
    }
    for trigger in crate::support::TRIGGERS {
        let since = bursts(Kind::UnixStream, trigger, None, SIZE, TIMES);
        assert_eq!(since.of(Call::Accept), (SIZE * TIMES) as u64);
        assert!(since.of(Call::Poll) <= (SIZE * TIMES) as u64, "a look after each");
    }
}

#[test]
fn only_the_dearest_proof_meets_an_empty_queue() {
    let since = bursts(Kind::Tcp4, Trigger::Edge, Some(EmptyCheck::UntilEagain), 4, 100);
    assert_eq!(since.of(Call::Accept), 500);
    let since = bursts(Kind::Tcp4, Trigger::Edge, Some(EmptyCheck::Poll), 4, 100);
    assert_eq!(since.of(Call::Accept), 400);
}
