//! A listener that was shut down is reported once, after everything that could still be accepted; no event follows.

use std::net::Shutdown;
use std::time::Duration;

use epoll_acceptor::{Acceptor, Gate, State};

use crate::support::{
    AnySocket, EMPTY_CHECKS, KINDS, Kind, LISTENER, NoDescriptors, Owner, SHORT, TRIGGERS, accept_on,
    assert_all_served, assert_balanced, done_in_child, matrix, serve, supported,
};

/// The shutdowns that close a listener; SHUT_WR does not.
const ENDS: [Shutdown; 2] = [Shutdown::Read, Shutdown::Both];

/// Asserts that the end is reported once and that no event follows.
fn assert_over(owner: &mut Owner, acceptor: &mut impl Acceptor) {
    for _ in 0..3 {
        assert_eq!(acceptor.ready().count(), 0, "reported once");
        assert_eq!(owner.wait(Duration::ZERO), 0, "woken for a closed listener");
    }
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), State::Closed);
    assert_eq!(owner.registrations().len(), 2, "the waker and the alarm");
    assert_balanced(acceptor);
}

#[test]
fn idle_listener_is_reported_once() {
    for kind in supported(&KINDS) {
        for trigger in TRIGGERS {
            for check in EMPTY_CHECKS {
                for how in ENDS {
                    let (listener, endpoint) = kind.listen();
                    let holder = listener.try_clone().unwrap();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, check);
                    let client = endpoint.connect();
                    owner.serve(&mut acceptor, 1);
                    client.assert_served();
                    holder.shutdown(how).unwrap();
                    let (served, closed) = owner.until_closed(&mut acceptor);
                    assert_eq!(served, 0);
                    assert!(closed.to_string().contains("open a new one"), "{closed}");
                    assert_eq!(std::io::Error::from(closed).kind(), std::io::ErrorKind::NotConnected);
                    assert_over(&mut owner, &mut acceptor);
                }
            }
        }
    }
}

#[test]
fn unix_queue_is_delivered_before_the_report() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for trigger in TRIGGERS {
            for check in EMPTY_CHECKS {
                for how in ENDS {
                    let (listener, endpoint) = kind.listen();
                    let holder = listener.try_clone().unwrap();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, check);
                    let clients = endpoint.connect_many(5);
                    holder.shutdown(how).unwrap();
                    assert_eq!(owner.until_closed(&mut acceptor).0, 5);
                    assert_all_served(&clients);
                    assert_over(&mut owner, &mut acceptor);
                }
            }
        }
    }
}

#[test]
fn early_exits_still_deliver_and_report() {
    for kind in [Kind::UnixStream, Kind::Tcp4] {
        for trigger in TRIGGERS {
            for check in EMPTY_CHECKS {
                let (listener, endpoint) = kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, check);
                let clients = endpoint.connect_many(4);
                assert_eq!(owner.wait(SHORT), 1);
                serve(&acceptor.ready().next().unwrap().unwrap());
                holder.shutdown(Shutdown::Both).unwrap();
                let (mut served, mut reported) = (1, false);
                let begin = std::time::Instant::now();
                while !reported {
                    assert!(begin.elapsed() < crate::support::LONG, "not reported: {}", acceptor.counters());
                    for _ in 0..owner.wait(SHORT) {
                        std::mem::forget(acceptor.ready());
                        match acceptor.ready().next() {
                            Some(Ok(connection)) => {
                                serve(&connection);
                                served += 1;
                            }
                            Some(Err(_)) => reported = true,
                            None => {}
                        }
                    }
                }
                assert_eq!(served, if kind.is_unix() { 4 } else { 1 });
                assert_all_served(&clients[..served]);
                assert_over(&mut owner, &mut acceptor);
            }
        }
    }
}

#[test]
fn close_during_a_pass_is_reported() {
    for (_, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let (listener, endpoint) = endpoint.kind.listen();
            let holder = listener.try_clone().unwrap();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, check);
            let _clients = endpoint.connect_many(3);
            assert_eq!(owner.wait(SHORT), 1);
            let (mut served, mut reports) = (0, 0);
            for connection in acceptor.ready() {
                match connection {
                    Ok(connection) => {
                        serve(&connection);
                        if served == 0 {
                            holder.shutdown(Shutdown::Both).unwrap();
                        }
                        served += 1;
                    }
                    Err(_) => reports += 1,
                }
            }
            if reports == 0 {
                served += owner.until_closed(&mut acceptor).0;
            }
            assert_eq!(served, if endpoint.kind.is_unix() { 3 } else { 1 });
            assert_over(&mut owner, &mut acceptor);
        }
    }
}

#[test]
fn paused_tcp_acceptor_reports_the_close() {
    for kind in supported(&[Kind::Tcp4, Kind::Tcp6, Kind::Mptcp]) {
        for trigger in TRIGGERS {
            for queued in [0, 2] {
                let (listener, endpoint) = kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, None);
                let _clients = endpoint.connect_many(queued);
                let pause = acceptor.control().pause();
                owner.settle(&mut acceptor);
                holder.shutdown(Shutdown::Both).unwrap();
                owner.until_closed(&mut acceptor);
                assert_over(&mut owner, &mut acceptor);
                drop(pause);
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Closed);
            }
        }
    }
}

#[test]
fn paused_unix_acceptor_delivers_after_the_pause() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for trigger in TRIGGERS {
            for how in ENDS {
                for queued in [0, 3] {
                    let (listener, endpoint) = kind.listen();
                    let holder = listener.try_clone().unwrap();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, None);
                    let clients = endpoint.connect_many(queued);
                    let pause = acceptor.control().pause();
                    owner.settle(&mut acceptor);
                    holder.shutdown(how).unwrap();
                    owner.settle(&mut acceptor);
                    assert_eq!(acceptor.state(), State::Paused);
                    drop(pause);
                    assert_eq!(owner.until_closed(&mut acceptor).0, queued);
                    assert_all_served(&clients);
                    assert_over(&mut owner, &mut acceptor);
                }
            }
        }
    }
}

#[test]
fn full_acceptor_reports_tcp_and_waits_for_unix() {
    for (_, endpoint, trigger) in matrix() {
        for how in ENDS {
            let (listener, endpoint) = endpoint.kind.listen();
            let holder = listener.try_clone().unwrap();
            let gate = Gate::new(1);
            let mut owner = Owner::new();
            let mut acceptor =
                trigger.on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(3);
            let kept = owner.take(&mut acceptor, 1);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Full);
            holder.shutdown(how).unwrap();
            if endpoint.kind.is_unix() {
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Full);
                drop(kept);
                assert_eq!(owner.until_closed(&mut acceptor).0, 2);
                assert_all_served(&clients);
                // The self-wakeup of a pass that was granted a permit.
                owner.settle(&mut acceptor);
            } else {
                assert_eq!(owner.until_closed(&mut acceptor).0, 0);
            }
            assert_over(&mut owner, &mut acceptor);
        }
    }
}

#[test]
fn exhausted_acceptor_reports_without_a_spin() {
    if done_in_child("listener_closed::exhausted_acceptor_reports_without_a_spin") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for queued in [0, 2] {
                let (listener, endpoint) = kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, None);
                let clients = endpoint.connect_many(queued);
                let none = NoDescriptors::now();
                if queued > 0 {
                    assert_eq!(owner.wait(SHORT), 1);
                    assert_eq!(acceptor.ready().count(), 0);
                    assert_eq!(acceptor.state(), State::Exhausted);
                }
                holder.shutdown(Shutdown::Both).unwrap();
                if kind == Kind::Tcp4 {
                    assert_eq!(owner.until_closed(&mut acceptor).0, 0);
                    drop(none);
                } else {
                    // Only an accept shows that the queue is empty, and that needs a descriptor.
                    let begin = std::time::Instant::now();
                    let wakes = owner.wakes;
                    while begin.elapsed() < Duration::from_millis(300) {
                        for _ in 0..owner.wait(SHORT) {
                            assert_eq!(acceptor.ready().count(), 0);
                        }
                    }
                    assert!(owner.wakes - wakes < 20, "{} wakes", owner.wakes - wakes);
                    drop(none);
                    assert_eq!(owner.until_closed(&mut acceptor).0, queued);
                    assert_all_served(&clients);
                }
                assert_over(&mut owner, &mut acceptor);
            }
        }
    }
}

#[test]
fn shutdown_write_closes_nothing() {
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let clients = endpoint.connect_many(2);
        listener.shutdown(Shutdown::Write).unwrap();
        owner.serve(&mut acceptor, 2);
        assert_all_served(&clients);
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.state(), State::Listening);
    }
}
