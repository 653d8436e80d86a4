//! The number of system calls per connection, besides the wait.

use std::collections::HashSet;
use std::os::fd::AsFd;

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::{Acceptor, Trigger};
use socket2::SockRef;

use crate::faults::interpose::{Call, count};
use crate::support::{Client, Endpoint, Kind, LONG, Owner, accept_on, assert_all_served, supported};

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

/// The calls of this thread.
struct Calls([u64; ALL.len()]);

impl Calls {
    fn now() -> Self {
        Self(ALL.map(count))
    }

    fn since(before: &Self) -> Self {
        Self(ALL.map(|call| count(call) - before.of(call)))
    }

    fn of(&self, call: Call) -> u64 {
        self.0[call as usize]
    }

    /// Returns the number of calls other than waits.
    fn others(&self) -> u64 {
        ALL.into_iter().filter(|call| *call != Call::Wait).map(|call| self.of(call)).sum()
    }
}

/// Serves `rounds` bursts of `size` connections and returns the calls they cost.
fn bursts(kind: Kind, trigger: Trigger, check: Option<EmptyCheck>, size: usize, rounds: usize) -> Calls {
    let (listener, endpoint) = kind.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, trigger, check);
    // The acceptor adapts to the burst size first.
    for _ in 0..100 {
        burst(&mut owner, &mut acceptor, &endpoint, size);
    }
    let before = Calls::now();
    for _ in 0..rounds {
        burst(&mut owner, &mut acceptor, &endpoint, size);
    }
    let counters = acceptor.counters();
    assert!(check == Some(EmptyCheck::UntilEagain) || counters.empty == 0, "{counters}");
    // The clients make none of these calls. Those of the deregistration are not counted.
    Calls::since(&before)
}

fn burst(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: AsFd>, endpoint: &Endpoint, size: usize) {
    let clients = endpoint.connect_many(size);
    let mut accepted = Vec::new();
    while accepted.len() < size {
        assert_eq!(owner.wait(LONG), 1);
        for connection in acceptor.ready() {
            let connection = connection.unwrap();
            crate::support::serve(&connection);
            accepted.push(connection);
        }
    }
    if endpoint.kind == Kind::Mptcp {
        // What is written at once after an MPTCP accept may stay in the socket: compare the peers instead.
        let peer = |connection| SockRef::from(connection).peer_addr().unwrap().as_socket();
        let peers: HashSet<_> = accepted.iter().map(peer).collect();
        let address = |client: &Client| client.0.local_addr().unwrap().as_socket();
        assert_eq!(peers, clients.iter().map(address).collect());
    } else {
        assert_all_served(&clients);
    }
    clients.into_iter().for_each(Client::reset);
}

const ROUNDS: usize = 3_000;

#[test]
fn level_costs_one_call_per_lone_connection() {
    for kind in [Kind::Tcp4, Kind::Tcp6, Kind::UnixStream] {
        let calls = bursts(kind, Trigger::Level, None, 1, ROUNDS);
        assert_eq!(calls.of(Call::Accept), ROUNDS as u64);
        assert_eq!(calls.of(Call::Wait), ROUNDS as u64);
        assert_eq!(calls.of(Call::Modify), 0);
        let others = calls.others();
        assert!(10 * others <= 11 * ROUNDS as u64, "{kind:?}: {others} calls for {ROUNDS} connections");
    }
}

#[test]
fn edge_costs_two_calls_per_lone_connection() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let calls = bursts(kind, Trigger::Edge, None, 1, ROUNDS);
        assert_eq!(calls.of(Call::Accept), ROUNDS as u64);
        assert_eq!(calls.of(Call::Modify), ROUNDS as u64, "once per pass");
        assert_eq!(calls.of(Call::Wait), ROUNDS as u64, "no spurious wakeup");
        let others = calls.others();
        assert!(10 * others <= 21 * ROUNDS as u64, "{kind:?}: {others} calls for {ROUNDS} connections");
    }
}

#[test]
fn burst_costs_one_accept_per_connection() {
    const SIZE: usize = 16;
    const TIMES: usize = 100;
    for kind in supported(&[Kind::Tcp4, Kind::Mptcp]) {
        for trigger in crate::support::TRIGGERS {
            let calls = bursts(kind, trigger, None, SIZE, TIMES);
            assert_eq!(calls.of(Call::Accept), (SIZE * TIMES) as u64);
            assert_eq!(calls.of(Call::Getsockopt), TIMES as u64, "one TCP_INFO per burst");
            assert_eq!(calls.of(Call::Poll), 0);
            assert!(calls.of(Call::Modify) <= TIMES as u64);
            assert_eq!(calls.of(Call::Wait), TIMES as u64);
        }
    }
    for trigger in crate::support::TRIGGERS {
        let calls = bursts(Kind::UnixStream, trigger, None, SIZE, TIMES);
        assert_eq!(calls.of(Call::Accept), (SIZE * TIMES) as u64);
        assert!(calls.of(Call::Poll) <= (SIZE * TIMES) as u64, "at most one per connection");
    }
}

#[test]
fn until_eagain_alone_calls_accept_on_empty_queue() {
    let calls = bursts(Kind::Tcp4, Trigger::Edge, Some(EmptyCheck::UntilEagain), 4, 100);
    assert_eq!(calls.of(Call::Accept), 500);
    let calls = bursts(Kind::Tcp4, Trigger::Edge, Some(EmptyCheck::Poll), 4, 100);
    assert_eq!(calls.of(Call::Accept), 400);
}
