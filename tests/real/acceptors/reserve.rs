//! The reserve descriptor: out of descriptors, an acceptor refuses pending connections within its budget and does not
//! spin.

use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Gate, Refusal, State, Trigger};

use crate::support::{
    Any, AnySocket, Endpoint, Kind, LISTENER, LONG, NoDescriptors, Owner, Read, SHORT, TRIGGERS,
    assert_balanced, done_in_child, open_descriptors,
};

const KINDS: [Kind; 2] = [Kind::Tcp4, Kind::UnixStream];

fn registered(owner: &Owner, kind: Kind, trigger: Trigger, budget: u32) -> (Any, Endpoint) {
    let (listener, endpoint) = kind.listen();
    let acceptor = trigger
        .on(AnySocket(listener))
        .gate(&Gate::new(100))
        .budget(budget)
        .refuse_when_exhausted(Refusal::Close)
        .register(&owner.epoll, LISTENER)
        .unwrap();
    (acceptor, endpoint)
}

#[test]
fn emfile_refuses_then_recovers() {
    if done_in_child("reserve::emfile_refuses_then_recovers") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let before = open_descriptors();
            let (mut acceptor, endpoint) = registered(&owner, kind, trigger, 64);
            let with = open_descriptors();
            let clients = endpoint.connect_many(5);
            let none = NoDescriptors::now();
            let control = acceptor.control();
            owner.until(
                "five refusals",
                || assert_eq!(acceptor.drain(drop).unwrap(), 0),
                || control.counters().refused_out_of_descriptors == 5,
            );
            for client in &clients {
                assert_eq!(client.read_within(LONG), Read::End);
            }
            // An empty queue is no reason for a retry.
            owner.settle(&mut acceptor);
            let attempts = control.counters().attempts;
            assert_eq!(owner.wait(SHORT), 0);
            assert_eq!(control.counters().attempts, attempts);
            drop(none);
            let client = endpoint.connect();
            owner.serve(&mut acceptor, 1);
            client.assert_served();
            drop((client, clients));
            owner.settle(&mut acceptor);
            assert_balanced(&acceptor);
            assert_eq!(open_descriptors(), with, "the reserve is there, and nothing else");
            drop((acceptor, endpoint, control));
            assert_eq!(open_descriptors(), before);
        }
    }
}

#[test]
fn pass_refuses_within_its_budget_then_backs_off() {
    if done_in_child("reserve::pass_refuses_within_its_budget_then_backs_off") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let (mut acceptor, endpoint) = registered(&owner, kind, trigger, 4);
            let clients = endpoint.connect_many(12);
            let none = NoDescriptors::now();
            assert!(owner.wait(LONG) > 0);
            assert_eq!(acceptor.ready().count(), 0);
            // One attempt returned EMFILE.
            assert_eq!(acceptor.counters().refused_out_of_descriptors, 3);
            assert_eq!((acceptor.counters().attempts, acceptor.state()), (4, State::Exhausted));
            let (begin, control) = (Instant::now(), acceptor.control());
            owner.until(
                "twelve refusals",
                || assert_eq!(acceptor.drain(drop).unwrap(), 0),
                || control.counters().refused_out_of_descriptors == 12,
            );
            let most = 10 + begin.elapsed().as_millis() / 150;
            assert!(u128::from(owner.wakes) <= most, "{} wakes: {}", owner.wakes, control.counters());
            drop(none);
            drop(clients);
            let client = endpoint.connect();
            owner.serve(&mut acceptor, 1);
            client.assert_served();
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn reserve_taken_by_another_thread_is_reopened() {
    if done_in_child("reserve::reserve_taken_by_another_thread_is_reopened") {
        return;
    }
    for kind in KINDS {
        let mut owner = Owner::new();
        let (mut acceptor, endpoint) = registered(&owner, kind, Trigger::Level, 64);
        let (mut other, other_endpoint) = registered(&owner, Kind::Tcp4, Trigger::Level, 64);
        let clients = endpoint.connect_many(200);
        let others = other_endpoint.connect_many(200);
        let none = NoDescriptors::now();
        // Two owners close their reserves and accept with any free descriptor, which may be the other's.
        let (begin, long) = (Instant::now(), Duration::from_millis(500));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while begin.elapsed() < long && other.counters().refused_out_of_descriptors < 200 {
                    // A connection that is delivered took the descriptor that the other owner had closed.
                    other.drain(drop).unwrap();
                }
            });
            while begin.elapsed() < long && acceptor.counters().refused_out_of_descriptors < 200 {
                acceptor.drain(drop).unwrap();
            }
        });
        drop(none);
        let (controls, begin) = ([acceptor.control(), other.control()], Instant::now());
        let settled = || -> u64 {
            controls.iter().map(|control| control.counters()).map(|c| c.delivered + c.refused).sum()
        };
        while settled() < 400 {
            assert!(begin.elapsed() < LONG, "{} of 400", settled());
            if owner.wait(Duration::from_millis(5)) > 0 {
                acceptor.drain(drop).unwrap();
                other.drain(drop).unwrap();
            }
        }
        drop((clients, others));
        // All may have been refused before; a pass that has descriptors opens the reserve that is missing.
        acceptor.drain(drop).unwrap();
        other.drain(drop).unwrap();
        // The reserves are open again: without descriptors, both refuse.
        for (acceptor, endpoint) in [(&mut acceptor, &endpoint), (&mut other, &other_endpoint)] {
            let client = endpoint.connect();
            let none = NoDescriptors::now();
            let refused = acceptor.counters().refused_out_of_descriptors;
            let begin = Instant::now();
            while acceptor.counters().refused_out_of_descriptors == refused {
                assert!(begin.elapsed() < LONG, "{}", acceptor.counters());
                owner.wait(Duration::from_millis(5));
                assert_eq!(acceptor.ready().count(), 0);
            }
            assert_eq!(client.read_within(LONG), Read::End);
            drop(none);
            assert_balanced(acceptor);
        }
    }
}
