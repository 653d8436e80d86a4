//! Out of descriptors: no spin, no strand, and back again without a new client. Each in a process of its own.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, AnyListener, Gate, State};

use crate::support::{
    Kind, LISTENER, NoDescriptors, Owner, PROOFS, SHORT, TRIGGERS, accept_on, assert_all_served,
    assert_balanced, done_in_child,
};

const KINDS: [Kind; 2] = [Kind::Tcp4, Kind::UnixStream];

/// Answers what comes for so long, with nothing to be had. How many wakes that took.
fn starve<A: Acceptor<Stream: AsFd>>(owner: &mut Owner, acceptor: &mut A, time: Duration) -> u64 {
    let (begin, wakes) = (Instant::now(), owner.wakes);
    while begin.elapsed() < time {
        for _ in 0..owner.wait(Duration::from_millis(50)) {
            assert_eq!(acceptor.ready().count(), 0);
        }
    }
    owner.wakes - wakes
}

/// The back-off allows for 10, 20, 40, 80, 160, 200, 200 ms and so on.
fn allowed(time: Duration) -> u64 {
    8 + u64::try_from(time.as_millis()).unwrap() / 150
}

#[test]
fn out_of_descriptors_it_does_not_spin_and_comes_back_by_its_timer() {
    if done_in_child("exhausted::out_of_descriptors_it_does_not_spin_and_comes_back_by_its_timer") {
        return;
    }
    let time = Duration::from_millis(300);
    for kind in KINDS {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let (listener, door) = kind.listen();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, proof);
                let clients = door.connect_many(5);
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
fn a_permit_given_back_wakes_it_before_its_timer() {
    if done_in_child("exhausted::a_permit_given_back_wakes_it_before_its_timer") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let gate = Gate::new(100);
            let mut owner = Owner::new();
            let mut acceptor =
                trigger.on(AnyListener(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let clients = door.connect_many(6);
            let mut kept = owner.take(&mut acceptor, 6);
            let late = door.connect_many(6);
            let none = NoDescriptors::now();
            starve(&mut owner, &mut acceptor, Duration::from_millis(50));
            assert_eq!(acceptor.state(), State::Exhausted);
            for served in 1..=6 {
                // Each that leaves lets one in. The ring is there at once; the timer need not be waited for.
                let leaves = kept.remove(0);
                std::thread::scope(|scope| scope.spawn(|| drop(leaves)).join().unwrap());
                assert!(owner.wait(Duration::ZERO) > 0, "it was rung for");
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
fn with_nothing_queued_it_neither_tries_nor_sleeps() {
    if done_in_child("exhausted::with_nothing_queued_it_neither_tries_nor_sleeps") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let none = NoDescriptors::now();
            // Needless passes, as an owner may begin at any time. EMFILE comes before an empty queue is seen.
            for _ in 0..50 {
                assert_eq!(acceptor.ready().count(), 0);
            }
            assert_eq!(acceptor.state(), State::Listening);
            assert_eq!(owner.wait(SHORT), 0);
            drop(none);
            let client = door.connect();
            owner.serve(&mut acceptor, 1);
            client.assert_served();
        }
    }
}

#[test]
fn needless_passes_neither_use_up_the_timer_nor_run_ahead_of_it() {
    if done_in_child("exhausted::needless_passes_neither_use_up_the_timer_nor_run_ahead_of_it") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let clients = door.connect_many(3);
            let none = NoDescriptors::now();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(200) {
                assert_eq!(acceptor.ready().count(), 0);
                std::mem::forget(acceptor.ready());
                owner.wait(Duration::from_micros(100));
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
fn two_that_starve_behind_one_gate_do_not_keep_each_other_awake() {
    if done_in_child("exhausted::two_that_starve_behind_one_gate_do_not_keep_each_other_awake") {
        return;
    }
    let gate = Gate::new(100);
    let mut all: Vec<_> = [Kind::Tcp4, Kind::UnixStream]
        .into_iter()
        .map(|kind| {
            let (listener, door) = kind.listen();
            let owner = Owner::new();
            let acceptor =
                TRIGGERS[0].on(AnyListener(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            (owner, acceptor, door.connect_many(3))
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
fn paused_and_resumed_while_it_starves_it_comes_back() {
    if done_in_child("exhausted::paused_and_resumed_while_it_starves_it_comes_back") {
        return;
    }
    for kind in KINDS {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let control = acceptor.control();
            let clients = door.connect_many(3);
            let none = NoDescriptors::now();
            // By now the timer is some way from its next turn.
            starve(&mut owner, &mut acceptor, Duration::from_millis(100));
            control.pause();
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Paused);
            assert_eq!(owner.wait(Duration::from_millis(250)), 0, "no timer runs under pause");
            control.resume();
            starve(&mut owner, &mut acceptor, SHORT);
            assert_eq!(acceptor.state(), State::Exhausted);
            control.pause();
            starve(&mut owner, &mut acceptor, SHORT);
            drop(none);
            control.resume();
            owner.serve(&mut acceptor, 3);
            assert_all_served(&clients);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn a_starving_acceptor_can_be_stopped_and_handed_on() {
    if done_in_child("exhausted::a_starving_acceptor_can_be_stopped_and_handed_on") {
        return;
    }
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener, trigger, None);
        let clients = door.connect_many(3);
        let none = NoDescriptors::now();
        starve(&mut owner, &mut acceptor, SHORT);
        acceptor.control().stop();
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.state(), State::Stopped);
        assert_eq!(owner.wait(Duration::from_millis(250)), 0, "no timer runs when it is stopped");
        let listener = acceptor.into_listener();
        drop(none);
        let mut next = accept_on(&owner, listener.0, trigger, None);
        owner.serve(&mut next, 3);
        assert_all_served(&clients);
    }
}
