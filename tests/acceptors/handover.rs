//! The listener changes hands and the queue goes with it; what is left behind is silent.

use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use epoll_acceptor::{Acceptor, LevelTriggered, Token};

use crate::support::{
    Kind, LISTENER, Owner, SHORT, TRIGGERS, accept_on, assert_all_served, done_in_child, listeners,
    open_descriptors, serve,
};

#[test]
fn a_dropped_acceptor_is_silent_although_a_duplicate_of_its_listener_lives() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            let control = acceptor.control();
            assert_eq!(owner.registrations().len(), 3, "the listener, the bell and the alarm");
            let early = door.connect();
            drop(acceptor);
            assert_eq!(owner.registrations(), []);
            let late = door.connect();
            control.resume();
            assert_eq!(owner.wait(SHORT), 0);
            let mut next = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            owner.serve(&mut next, 2);
            assert_all_served(&[early, late]);
        }
    }
}

#[test]
fn taking_the_listener_out_keeps_the_queue_for_a_new_acceptor_on_a_new_epoll() {
    for (listener, door) in listeners() {
        for from in TRIGGERS {
            for to in TRIGGERS {
                let mut old = Owner::new();
                let mut acceptor = accept_on(&old, listener.try_clone().unwrap(), from, None);
                let mut clients = door.connect_many(4);
                assert_eq!(old.wait(SHORT), 1);
                serve(&acceptor.ready().next().unwrap().unwrap());
                let number = acceptor.listener().as_fd().as_raw_fd();
                let listener = acceptor.into_listener();
                assert_eq!(listener.as_fd().as_raw_fd(), number);
                assert_eq!(old.registrations(), []);
                clients.extend(door.connect_many(2));
                assert_eq!(old.wait(SHORT), 0);
                let mut new = Owner::new();
                let mut acceptor = accept_on(&new, listener.0, to, None);
                new.serve(&mut acceptor, 5);
                assert_all_served(&clients);
                drop(old);
                let client = door.connect();
                new.serve(&mut acceptor, 1);
                client.assert_served();
            }
        }
    }
}

#[test]
fn two_owners_can_hold_one_listener_while_it_changes_hands() {
    for (listener, door) in listeners() {
        let (mut old, mut new) = (Owner::new(), Owner::new());
        let mut retiring = accept_on(&old, listener.try_clone().unwrap(), TRIGGERS[1], None);
        let mut coming = accept_on(&new, listener, TRIGGERS[1], None);
        let clients = door.connect_many(4);
        retiring.control().stop();
        old.settle(&mut retiring);
        new.serve(&mut coming, 4);
        assert_all_served(&clients);
    }
}

#[test]
fn an_acceptor_is_built_on_one_thread_and_run_on_another() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let clients = door.connect_many(3);
    thread::spawn(move || owner.serve(&mut acceptor, 3)).join().unwrap();
    assert_all_served(&clients);
}

#[test]
fn the_epoll_may_be_closed_before_its_acceptor() {
    let (listener, door) = Kind::Tcp4.listen();
    let owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[1], None);
    let _client = door.connect();
    drop(owner);
    assert_eq!(acceptor.drain(|connection| serve(&connection)).unwrap(), 1);
    let mut next = Owner::new();
    let mut acceptor = accept_on(&next, acceptor.into_listener().0, TRIGGERS[0], None);
    let client = door.connect();
    next.serve(&mut acceptor, 1);
    client.assert_served();
}

#[test]
fn registering_and_taking_out_leaks_nothing() {
    if done_in_child("handover::registering_and_taking_out_leaks_nothing") {
        return;
    }
    let (mut listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let before = open_descriptors();
    for round in 0..200 {
        let mut acceptor = accept_on(&owner, listener, TRIGGERS[round % 2], None);
        let client = door.connect();
        owner.serve(&mut acceptor, 1);
        client.assert_served();
        listener = acceptor.into_listener().0;
        let copy = listener.try_clone().unwrap();
        drop(LevelTriggered::on(epoll_acceptor::AnyListener(copy)).register(&owner.epoll, Token(9)).unwrap());
    }
    assert_eq!(open_descriptors(), before);
    assert_eq!(owner.registrations(), []);
}

#[test]
fn each_acceptor_of_an_epoll_has_its_own_token() {
    let ((one, one_door), (two, two_door)) = (Kind::Tcp4.listen(), Kind::UnixStream.listen());
    let mut owner = Owner::new();
    let mut one = accept_on(&owner, one, TRIGGERS[1], None);
    let mut two = TRIGGERS[1].on(epoll_acceptor::AnyListener(two)).register(&owner.epoll, Token(8)).unwrap();
    let clients = [one_door.connect(), two_door.connect(), one_door.connect()];
    // One event is read and the rest of the batch left: the next wait hands it out.
    let mut served = 0;
    while served < 3 {
        let waited = owner.epoll.wait(&mut owner.events, Some(crate::support::LONG)).unwrap();
        assert!(waited.count() > 0);
        served += match owner.events.next().unwrap().token() {
            LISTENER => one.drain(|connection| serve(&connection)).unwrap(),
            token => {
                assert_eq!(token, Token(8));
                two.drain(|connection| serve(&connection)).unwrap()
            }
        };
    }
    assert_all_served(&clients);
}
