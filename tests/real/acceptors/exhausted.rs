//! Out of descriptors: the acceptor neither spins nor strands a connection, and recovers without a new client. Each test
//! runs in a process of its own.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Acceptor, Gate, State};

use crate::support::{
    AnySocket, EMPTY_CHECKS, Kind, LISTENER, NoDescriptors, Owner, SHORT, TRIGGERS, accept_on,
    assert_all_served, assert_balanced, done_in_child,
};

const KINDS: [Kind; 2] = [Kind::Tcp4, Kind::UnixStream];

/// Runs a pass per event for this time, none of which can accept. Returns the number of wakes.
fn starve<A: Acceptor<Stream: AsFd>>(owner: &mut Owner, acceptor: &mut A, time: Duration) -> u64 {
    let (begin, wakes) = (Instant::now(), owner.wakes);
    while begin.elapsed() < time {
        for _ in 0..owner.wait(Duration::from_millis(50)) {
            assert_eq!(acceptor.ready().count(), 0);
        }
    }
    owner.wakes - wakes
}

/// Returns the number of wakes that the back-off allows: after 10, 20, 40, 80, 160, 200, 200 ms and so on.
fn allowed(time: Duration) -> u64 {
    8 + u64::try_from(time.as_millis()).unwrap() / 150
}

#[test]
fn emfile_backs_off_then_recovers_by_timer() {
    if done_in_child("exhausted::emfile_backs_off_then_recovers_by_timer") {
        return;
    }
    let time = Duration::from_millis(300);
    for kind in KINDS {
        for trigger in TRIGGERS {
            for check in EMPTY_CHECKS {
                let (listener, endpoint) = kind.listen();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, check);
                let clients = endpoint.connect_many(5);
                let none = NoDescriptors::now();
                let begin = Instant::now();
                let wakes = starve(&mut owner, &mut acceptor, time);
                let limit = allowed(begin.elapsed());
                assert_eq!(acceptor.state(), State::Exhausted);
                let counters = acceptor.counters();
                assert!((1..=limit).contains(&wakes), "{wakes} wakes: {counters}");
                assert!(counters.passes <= limit, "{counters}");
                assert!((1..=limit).contains(&counters.exhausted), "{counters}");
                assert_eq!(counters.delivered, 0);
                assert_eq!(counters.exhausted_process_descriptors, counters.exhausted);
                assert_eq!(counters.last_errno, Some(Errno::new(libc::EMFILE)));
                assert!(counters.time_in(State::Exhausted) > Duration::ZERO);
                drop(none);
                owner.serve(&mut acceptor, 5);
                assert_all_served(&clients);
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Listening);
                assert_balanced(&acceptor);
            }
        }
    }
}

#[test]
fn failed_poll_is_no_empty_queue() {
    if done_in_child("exhausted::failed_poll_is_no_empty_queue") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            for check in EMPTY_CHECKS {
                let (listener, endpoint) = kind.listen();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, check);
                let clients = endpoint.connect_many(5);
                let none = NoDescriptors::not_even_poll();
                let begin = Instant::now();
                let wakes = starve(&mut owner, &mut acceptor, Duration::from_millis(50));
                assert!((1..=allowed(begin.elapsed())).contains(&wakes), "{wakes}: {}", acceptor.counters());
                assert_eq!(acceptor.state(), State::Exhausted);
                drop(none);
                owner.serve(&mut acceptor, 5);
                assert_all_served(&clients);
            }
        }
    }
}

#[test]
fn release_retries_before_the_timer() {
    if done_in_child("exhausted::release_retries_before_the_timer") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let gate = Gate::new(100);
            let mut owner = Owner::new();
            let mut acceptor =
                trigger.on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(6);
            let mut kept = owner.take(&mut acceptor, 6);
            let late = endpoint.connect_many(6);
            let none = NoDescriptors::now();
            starve(&mut owner, &mut acceptor, Duration::from_millis(50));
            assert_eq!(acceptor.state(), State::Exhausted);
            for served in 1..=6 {
                // Each close frees a descriptor, and its release wakes the acceptor at once.
                let closing = kept.remove(0);
                std::thread::scope(|scope| scope.spawn(|| drop(closing)).join().unwrap());
                assert!(owner.wait(Duration::ZERO) > 0, "the release wakes it");
                kept.extend(acceptor.ready().map(|connection| {
                    let connection = connection.unwrap();
                    crate::support::serve(&connection);
                    connection
                }));
                assert_eq!(acceptor.counters().delivered, 6 + served);
            }
            drop(none);
            assert_all_served(&clients);
            assert_all_served(&late);
            drop(kept);
            owner.settle(&mut acceptor);
            assert_eq!((gate.in_use(), acceptor.state()), (0, State::Listening));
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn empty_queue_is_no_reason_to_back_off() {
    if done_in_child("exhausted::empty_queue_is_no_reason_to_back_off") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let none = NoDescriptors::now();
            // Spurious passes, which an owner may begin at any time. accept4 returns EMFILE before it looks at the queue.
            for _ in 0..50 {
                assert_eq!(acceptor.ready().count(), 0);
            }
            assert_eq!(acceptor.state(), State::Listening);
            assert_eq!(owner.wait(SHORT), 0);
            drop(none);
            let client = endpoint.connect();
            owner.serve(&mut acceptor, 1);
            client.assert_served();
        }
    }
}

#[test]
fn spurious_passes_keep_the_back_off() {
    if done_in_child("exhausted::spurious_passes_keep_the_back_off") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let clients = endpoint.connect_many(3);
            let none = NoDescriptors::now();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(200) {
                // First: the events of a wait need a pass after it.
                owner.wait(Duration::from_micros(100));
                assert_eq!(acceptor.ready().count(), 0);
                std::mem::forget(acceptor.ready());
            }
            let exhausted = acceptor.counters().exhausted;
            assert!(exhausted <= allowed(begin.elapsed()), "{exhausted} attempts");
            drop(none);
            owner.serve(&mut acceptor, 3);
            assert_all_served(&clients);
        }
    }
}

#[test]
fn exhausted_acceptors_do_not_wake_each_other() {
    if done_in_child("exhausted::exhausted_acceptors_do_not_wake_each_other") {
        return;
    }
    let gate = Gate::new(100);
    let mut all: Vec<_> = [Kind::Tcp4, Kind::UnixStream]
        .into_iter()
        .map(|kind| {
            let (listener, endpoint) = kind.listen();
            let owner = Owner::new();
            let acceptor =
                TRIGGERS[0].on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            (owner, acceptor, endpoint.connect_many(3))
        })
        .collect();
    let none = NoDescriptors::now();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        for (owner, acceptor, _) in &mut all {
            for _ in 0..owner.wait(Duration::from_millis(2)) {
                assert_eq!(acceptor.ready().count(), 0);
            }
        }
    }
    for (owner, acceptor, _) in &all {
        assert!(owner.wakes <= allowed(begin.elapsed()), "{}: {}", owner.wakes, acceptor.counters());
    }
    assert_eq!(gate.in_use(), 0);
    drop(none);
    for (owner, acceptor, clients) in &mut all {
        owner.serve(acceptor, 3);
        assert_all_served(clients);
        assert_balanced(acceptor);
    }
}

#[test]
fn exhausted_acceptor_recovers_after_a_pause() {
    if done_in_child("exhausted::exhausted_acceptor_recovers_after_a_pause") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let control = acceptor.control();
            let clients = endpoint.connect_many(3);
            let none = NoDescriptors::now();
            // The back-off has grown, so the timer is not due soon.
            starve(&mut owner, &mut acceptor, Duration::from_millis(100));
            let pause = control.pause();
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Paused);
            assert_eq!(owner.wait(Duration::from_millis(250)), 0, "no timer runs during a pause");
            drop(pause);
            starve(&mut owner, &mut acceptor, SHORT);
            assert_eq!(acceptor.state(), State::Exhausted);
            let pause = control.pause();
            starve(&mut owner, &mut acceptor, SHORT);
            drop(none);
            drop(pause);
            owner.serve(&mut acceptor, 3);
            assert_all_served(&clients);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn exhausted_acceptor_stops_and_keeps_its_queue() {
    if done_in_child("exhausted::exhausted_acceptor_stops_and_keeps_its_queue") {
        return;
    }
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener, trigger, None);
        let clients = endpoint.connect_many(3);
        let none = NoDescriptors::now();
        starve(&mut owner, &mut acceptor, SHORT);
        acceptor.control().stop();
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.state(), State::Stopped);
        assert_eq!(owner.wait(Duration::from_millis(250)), 0, "no timer runs after a stop");
        let listener = acceptor.into_listener();
        drop(none);
        let mut next = accept_on(&owner, listener.0, trigger, None);
        owner.serve(&mut next, 3);
        assert_all_served(&clients);
    }
}
