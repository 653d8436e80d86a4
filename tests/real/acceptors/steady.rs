//! In steady state no accept finds the queue empty, and no wakeup is spurious.

use std::os::fd::AsFd;
use std::time::Duration;

use epoll_acceptor::{Acceptor, Gate};

use crate::support::{
    AnySocket, Endpoint, Kind, LISTENER, LONG, Owner, TRIGGERS, accept_on, assert_all_served,
    assert_balanced, matrix,
};

/// Serves `count` concurrent clients. The clients close first, with a reset.
fn burst<A: Acceptor<Stream: AsFd>>(owner: &mut Owner, acceptor: &mut A, endpoint: &Endpoint, count: usize) {
    let clients = endpoint.connect_many(count);
    let mut kept = Vec::new();
    while kept.len() < count {
        assert_eq!(owner.wait(LONG), 1);
        for connection in acceptor.ready() {
            let connection = connection.unwrap();
            crate::support::serve(&connection);
            kept.push(connection);
        }
    }
    assert_all_served(&clients);
    clients.into_iter().for_each(crate::support::Client::reset);
}

/// Returns pseudo-random burst sizes.
fn sizes(up_to: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9E37_79B9_u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 16) as usize % up_to
    })
}

#[test]
fn lone_connections_cost_one_wake_and_accept() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            for _ in 0..10_000 {
                burst(&mut owner, &mut acceptor, &endpoint, 1);
            }
            let counters = acceptor.counters();
            assert_eq!((counters.empty, counters.attempts), (0, 10_000), "{counters}");
            assert_eq!(owner.wakes, 10_000, "one wake each");
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn bursts_cost_no_empty_accept() {
    for (listener, endpoint, trigger) in matrix() {
        for up_to in [3, 40, 130] {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            let mut total = 0;
            for size in sizes(up_to) {
                burst(&mut owner, &mut acceptor, &endpoint, size);
                total += size;
                if total > 600 {
                    break;
                }
            }
            let counters = acceptor.counters();
            assert_eq!(counters.empty, 0, "{counters}");
            assert_eq!(counters.attempts, total as u64, "{counters}");
        }
    }
}

#[test]
fn full_gate_costs_no_empty_accept() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let gate = Gate::new(3);
            let mut owner = Owner::new();
            let mut acceptor =
                trigger.on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            for size in sizes(8).take(300) {
                let clients = endpoint.connect_many(size);
                let mut left = size;
                while left > 0 {
                    let kept = owner.take(&mut acceptor, left.min(3));
                    left -= kept.len();
                }
                assert_all_served(&clients);
                clients.into_iter().for_each(crate::support::Client::reset);
            }
            let counters = acceptor.counters();
            assert_eq!(counters.empty, 0, "{counters}");
        }
    }
}

#[test]
fn idle_acceptor_is_never_woken() {
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        burst(&mut owner, &mut acceptor, &endpoint, 5);
        let wakes = owner.wakes;
        assert_eq!(owner.wait(Duration::from_millis(20)), 0);
        assert_eq!(owner.wakes, wakes);
    }
}

#[test]
fn wakeup_at_an_empty_queue_costs_no_accept() {
    for (listener, _door, trigger) in matrix() {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let control = acceptor.control();
        for _ in 0..5 {
            drop(control.pause());
            owner.settle(&mut acceptor);
            let pause = control.pause();
            owner.settle(&mut acceptor);
            drop(pause);
            owner.settle(&mut acceptor);
        }
        assert_eq!(acceptor.counters().attempts, 0);
    }
}

#[test]
fn wakeup_with_an_arrival_costs_no_empty_accept() {
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let control = acceptor.control();
        for wake_first in [true, false] {
            for _ in 0..10 {
                if wake_first {
                    drop(control.pause());
                }
                let client = endpoint.connect();
                if !wake_first {
                    drop(control.pause());
                }
                assert_eq!(owner.wait(LONG), 2);
                let served: usize = (0..2)
                    .map(|_| acceptor.drain(|connection| crate::support::serve(&connection)).unwrap())
                    .sum();
                assert_eq!(served, 1);
                client.assert_served();
            }
        }
        let counters = acceptor.counters();
        assert_eq!(counters.empty, 0, "{counters}");
    }
}
