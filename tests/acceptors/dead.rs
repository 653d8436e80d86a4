//! A listener that is shut down is told once, after all that was still acceptable; then there is silence.

use std::net::Shutdown;
use std::time::Duration;

use epoll_acceptor::{Acceptor, AnyListener, Gate, State};

use crate::support::{
    Kind, LISTENER, NoDescriptors, Owner, PROOFS, SHORT, TRIGGERS, accept_on, assert_all_served,
    assert_balanced, done_in_child, listeners, serve,
};

/// The shutdowns that end a listener; SHUT_WR does not.
const ENDS: [Shutdown; 2] = [Shutdown::Read, Shutdown::Both];

/// Told, it is never told or woken again.
fn assert_over(owner: &mut Owner, acceptor: &mut impl Acceptor) {
    for _ in 0..3 {
        assert_eq!(acceptor.ready().count(), 0, "told once");
        assert_eq!(owner.wait(Duration::ZERO), 0, "woken for a dead listener");
    }
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), State::Closed);
    assert_eq!(owner.registrations().len(), 2, "the bell and the alarm");
    assert_balanced(acceptor);
}

#[test]
fn a_listener_shut_down_at_rest_is_told_once() {
    for kind in crate::support::KINDS {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                for how in ENDS {
                    let (listener, door) = kind.listen();
                    let holder = listener.try_clone().unwrap();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, proof);
                    let client = door.connect();
                    owner.serve(&mut acceptor, 1);
                    client.assert_served();
                    holder.shutdown(how).unwrap();
                    let (served, dead) = owner.told(&mut acceptor);
                    assert_eq!(served, 0);
                    assert!(dead.to_string().contains("open a new one"), "{dead}");
                    assert_eq!(std::io::Error::from(dead).kind(), std::io::ErrorKind::NotConnected);
                    assert_over(&mut owner, &mut acceptor);
                }
            }
        }
    }
}

#[test]
fn what_is_queued_on_a_unix_listener_is_delivered_before_its_death_is_told() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                for how in ENDS {
                    let (listener, door) = kind.listen();
                    let holder = listener.try_clone().unwrap();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, proof);
                    let clients = door.connect_many(5);
                    holder.shutdown(how).unwrap();
                    assert_eq!(owner.told(&mut acceptor).0, 5);
                    assert_all_served(&clients);
                    assert_over(&mut owner, &mut acceptor);
                }
            }
        }
    }
}

#[test]
fn leaving_every_pass_early_still_delivers_all_and_tells() {
    for kind in [Kind::UnixStream, Kind::Tcp4] {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let (listener, door) = kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, proof);
                let clients = door.connect_many(4);
                assert_eq!(owner.wait(SHORT), 1);
                serve(&acceptor.ready().next().unwrap().unwrap());
                holder.shutdown(Shutdown::Both).unwrap();
                let (mut served, mut told) = (1, false);
                let begin = std::time::Instant::now();
                while !told {
                    assert!(begin.elapsed() < crate::support::LONG, "not told: {}", acceptor.counters());
                    for _ in 0..owner.wait(SHORT) {
                        std::mem::forget(acceptor.ready());
                        match acceptor.ready().next() {
                            Some(Ok(connection)) => {
                                serve(&connection);
                                served += 1;
                            }
                            Some(Err(_)) => told = true,
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
fn death_in_the_middle_of_a_pass_is_told() {
    for (_, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let (listener, door) = door.kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, proof);
                let _clients = door.connect_many(3);
                assert_eq!(owner.wait(SHORT), 1);
                let (mut served, mut told) = (0, 0);
                for connection in acceptor.ready() {
                    match connection {
                        Ok(connection) => {
                            serve(&connection);
                            if served == 0 {
                                holder.shutdown(Shutdown::Both).unwrap();
                            }
                            served += 1;
                        }
                        Err(_) => told += 1,
                    }
                }
                if told == 0 {
                    served += owner.told(&mut acceptor).0;
                }
                assert_eq!(served, if door.kind.is_unix() { 3 } else { 1 });
                assert_over(&mut owner, &mut acceptor);
            }
        }
    }
}

#[test]
fn under_pause_the_death_of_a_tcp_listener_is_told() {
    for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Mptcp] {
        for trigger in TRIGGERS {
            for queued in [0, 2] {
                let (listener, door) = kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, None);
                let _clients = door.connect_many(queued);
                acceptor.control().pause();
                owner.settle(&mut acceptor);
                holder.shutdown(Shutdown::Both).unwrap();
                owner.told(&mut acceptor);
                assert_over(&mut owner, &mut acceptor);
                acceptor.control().resume();
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Closed);
            }
        }
    }
}

#[test]
fn under_pause_a_dead_unix_listener_is_silent_and_delivers_and_tells_when_resumed() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for trigger in TRIGGERS {
            for how in ENDS {
                for queued in [0, 3] {
                    let (listener, door) = kind.listen();
                    let holder = listener.try_clone().unwrap();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, None);
                    let clients = door.connect_many(queued);
                    acceptor.control().pause();
                    owner.settle(&mut acceptor);
                    holder.shutdown(how).unwrap();
                    owner.settle(&mut acceptor);
                    assert_eq!(acceptor.state(), State::Paused);
                    acceptor.control().resume();
                    assert_eq!(owner.told(&mut acceptor).0, queued);
                    assert_all_served(&clients);
                    assert_over(&mut owner, &mut acceptor);
                }
            }
        }
    }
}

#[test]
fn behind_a_full_gate_the_death_of_a_tcp_listener_is_told_and_a_unix_queue_waits_for_places() {
    for (_, door) in listeners() {
        for trigger in TRIGGERS {
            for how in ENDS {
                let (listener, door) = door.kind.listen();
                let holder = listener.try_clone().unwrap();
                let gate = Gate::new(1);
                let mut owner = Owner::new();
                let mut acceptor =
                    trigger.on(AnyListener(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
                let clients = door.connect_many(3);
                let kept = owner.take(&mut acceptor, 1);
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Full);
                holder.shutdown(how).unwrap();
                if door.kind.is_unix() {
                    owner.settle(&mut acceptor);
                    assert_eq!(acceptor.state(), State::Full);
                    drop(kept);
                    assert_eq!(owner.told(&mut acceptor).0, 2);
                    assert_all_served(&clients);
                    // The further pass for which `ready` rings when a place has been handed over.
                    owner.settle(&mut acceptor);
                } else {
                    assert_eq!(owner.told(&mut acceptor).0, 0);
                }
                assert_over(&mut owner, &mut acceptor);
            }
        }
    }
}

#[test]
fn out_of_descriptors_the_death_of_a_listener_is_told_without_a_spin() {
    if done_in_child("dead::out_of_descriptors_the_death_of_a_listener_is_told_without_a_spin") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for queued in [0, 2] {
                let (listener, door) = kind.listen();
                let holder = listener.try_clone().unwrap();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, None);
                let clients = door.connect_many(queued);
                let none = NoDescriptors::now();
                if queued > 0 {
                    assert_eq!(owner.wait(SHORT), 1);
                    assert_eq!(acceptor.ready().count(), 0);
                    assert_eq!(acceptor.state(), State::Exhausted);
                }
                holder.shutdown(Shutdown::Both).unwrap();
                if kind == Kind::Tcp4 {
                    assert_eq!(owner.told(&mut acceptor).0, 0);
                    drop(none);
                } else {
                    // Only an accept can tell that nothing is queued, and that needs a descriptor.
                    let begin = std::time::Instant::now();
                    let wakes = owner.wakes;
                    while begin.elapsed() < Duration::from_millis(300) {
                        for _ in 0..owner.wait(SHORT) {
                            assert_eq!(acceptor.ready().count(), 0);
                        }
                    }
                    assert!(owner.wakes - wakes < 20, "{} wakes", owner.wakes - wakes);
                    drop(none);
                    assert_eq!(owner.told(&mut acceptor).0, queued);
                    assert_all_served(&clients);
                }
                assert_over(&mut owner, &mut acceptor);
            }
        }
    }
}

#[test]
fn shutting_down_the_writing_half_is_no_death() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            let clients = door.connect_many(2);
            listener.shutdown(Shutdown::Write).unwrap();
            owner.serve(&mut acceptor, 2);
            assert_all_served(&clients);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Listening);
        }
    }
}
