//! The listener gets another owner and keeps its queue; what is left behind reports no event.

use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Acceptor, LevelTriggered, Token};

use crate::support::{
    AnySocket, Kind, LISTENER, Owner, SHORT, TRIGGERS, accept_on, assert_all_served, done_in_child,
    listeners, matrix, open_descriptors, serve,
};

#[test]
fn drop_deletes_every_registration() {
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let control = acceptor.control();
        assert_eq!(owner.registrations().len(), 3, "the listener, the waker and the alarm");
        let early = endpoint.connect();
        drop(acceptor);
        assert_eq!(owner.registrations(), []);
        let late = endpoint.connect();
        drop(control.pause());
        assert_eq!(owner.wait(SHORT), 0);
        let mut next = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        owner.serve(&mut next, 2);
        assert_all_served(&[early, late]);
    }
}

#[test]
fn into_listener_keeps_the_queue() {
    for (listener, endpoint, from) in matrix() {
        for to in TRIGGERS {
            let mut old = Owner::new();
            let mut acceptor = accept_on(&old, listener.try_clone().unwrap(), from, None);
            let mut clients = endpoint.connect_many(4);
            assert_eq!(old.wait(SHORT), 1);
            serve(&acceptor.ready().next().unwrap().unwrap());
            let number = acceptor.listener().as_fd().as_raw_fd();
            let listener = acceptor.into_listener();
            assert_eq!(listener.as_fd().as_raw_fd(), number);
            assert_eq!(old.registrations(), []);
            clients.extend(endpoint.connect_many(2));
            assert_eq!(old.wait(SHORT), 0);
            let mut new = Owner::new();
            let mut acceptor = accept_on(&new, listener.0, to, None);
            new.serve(&mut acceptor, 5);
            assert_all_served(&clients);
            drop(old);
            let client = endpoint.connect();
            new.serve(&mut acceptor, 1);
            client.assert_served();
        }
    }
}

#[test]
fn two_acceptors_overlap_on_one_listener() {
    for (listener, endpoint) in listeners() {
        let (mut old, mut new) = (Owner::new(), Owner::new());
        let mut first = accept_on(&old, listener.try_clone().unwrap(), TRIGGERS[1], None);
        let mut second = accept_on(&new, listener, TRIGGERS[1], None);
        let clients = endpoint.connect_many(4);
        first.control().stop();
        old.settle(&mut first);
        new.serve(&mut second, 4);
        assert_all_served(&clients);
    }
}

#[test]
fn acceptor_runs_on_another_thread() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let clients = endpoint.connect_many(3);
    thread::spawn(move || owner.serve(&mut acceptor, 3)).join().unwrap();
    assert_all_served(&clients);
}

#[test]
fn acceptor_outlives_its_epoll() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[1], None);
    let _client = endpoint.connect();
    drop(owner);
    assert_eq!(acceptor.drain(|connection| serve(&connection)).unwrap(), 1);
    let mut next = Owner::new();
    let mut acceptor = accept_on(&next, acceptor.into_listener().0, TRIGGERS[0], None);
    let client = endpoint.connect();
    next.serve(&mut acceptor, 1);
    client.assert_served();
}

#[test]
fn register_and_into_listener_leak_nothing() {
    if done_in_child("new_owner::register_and_into_listener_leak_nothing") {
        return;
    }
    let (mut listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let before = open_descriptors();
    for round in 0..200 {
        let mut acceptor = accept_on(&owner, listener, TRIGGERS[round % 2], None);
        let client = endpoint.connect();
        owner.serve(&mut acceptor, 1);
        client.assert_served();
        listener = acceptor.into_listener().0;
        let copy = listener.try_clone().unwrap();
        drop(LevelTriggered::on(AnySocket(copy)).register(&owner.epoll, Token(9)).unwrap());
    }
    assert_eq!(open_descriptors(), before);
    assert_eq!(owner.registrations(), []);
}

#[test]
fn acceptors_of_one_epoll_have_their_own_tokens() {
    let ((one, one_endpoint), (two, two_endpoint)) = (Kind::Tcp4.listen(), Kind::UnixStream.listen());
    let mut owner = Owner::new();
    let mut one = accept_on(&owner, one, TRIGGERS[1], None);
    let mut two = TRIGGERS[1].on(AnySocket(two)).register(&owner.epoll, Token(8)).unwrap();
    let clients = [one_endpoint.connect(), two_endpoint.connect(), one_endpoint.connect()];
    // Reads one event per wait: the next wait returns the rest of the batch.
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

#[test]
fn backlog_changes_with_a_connection_pending() {
    for (listener, endpoint) in listeners().filter(|(_, endpoint)| !endpoint.kind.is_unix()) {
        for trigger in TRIGGERS {
            for backlog in [1, 3, 64, 0, u32::MAX] {
                listener.listen(128).unwrap();
                let early = endpoint.connect();
                let mut owner = Owner::new();
                let builder = trigger.on(AnySocket(listener.try_clone().unwrap())).backlog(backlog);
                let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
                let queue = accept_queue(&listener).unwrap();
                assert_eq!(queue.depth, 1, "nothing is lost");
                match backlog {
                    // As much as net.core.somaxconn allows.
                    u32::MAX => assert!(queue.backlog >= 128),
                    _ => assert_eq!(queue.backlog, backlog, "{:?}", endpoint.kind),
                }
                owner.serve(&mut acceptor, 1);
                early.assert_served();
                let late = endpoint.connect();
                owner.serve(&mut acceptor, 1);
                late.assert_served();
            }
        }
    }
}
