//! A forked child shares the parent's epoll: what it drops must not deafen the parent.
#![allow(unsafe_code)]

use std::time::Duration;

use epoll_acceptor::{Acceptor, State};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::support::{Any, Kind, Owner, SHORT, TRIGGERS, accept_on, assert_all_served, done_in_child};

/// Runs `act` in a forked child, on its copy of the acceptor, and waits for its end.
fn in_fork(acceptor: Any, act: impl FnOnce(Any)) -> Any {
    // SAFETY: this process runs one test on one thread, so that the child may do what it likes.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            act(acceptor);
            // SAFETY: takes a number; nothing of the parent's is torn down by the child.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            acceptor
        }
    }
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_parent_registered() {
    if done_in_child("fork::a_child_that_drops_its_copy_leaves_the_parent_registered") {
        return;
    }
    let acts: [fn(Any); 3] = [
        drop,
        |acceptor| drop(acceptor.into_listener()),
        // This rings the parent, which finds nothing to do.
        |acceptor| acceptor.control().stop(),
    ];
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for act in acts {
                let (listener, door) = kind.listen();
                let mut owner = Owner::new();
                let acceptor = accept_on(&owner, listener, trigger, None);
                let before = owner.registrations();
                let mut acceptor = in_fork(acceptor, act);
                assert_eq!(owner.registrations(), before);
                let clients = door.connect_many(3);
                owner.serve(&mut acceptor, 3);
                assert_all_served(&clients);
                // The bell still rings.
                let control = acceptor.control();
                owner.settle(&mut acceptor);
                control.pause();
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Paused);
                let client = door.connect();
                assert_eq!(owner.wait(SHORT), 0);
                control.resume();
                assert!(owner.wait(Duration::ZERO) > 0);
                assert_eq!(acceptor.drain(|connection| crate::support::serve(&connection)).unwrap(), 1);
                client.assert_served();
                drop(acceptor);
                assert_eq!(owner.registrations(), []);
            }
        }
    }
}

#[test]
fn a_parent_that_drops_its_copy_is_silent_although_the_child_lives() {
    if done_in_child("fork::a_parent_that_drops_its_copy_is_silent_although_the_child_lives") {
        return;
    }
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    // SAFETY: as above; this child only waits to be killed, and ends by itself if nobody does.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            // SAFETY: they take no pointer.
            unsafe {
                libc::alarm(20);
                libc::pause();
            }
        },
        ForkResult::Parent { child } => child,
    };
    drop(acceptor);
    let _client = door.connect();
    assert_eq!(owner.wait(SHORT), 0);
    assert_eq!(owner.registrations(), []);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
}

#[test]
fn a_child_that_runs_passes_owns_the_registration_while_the_parent_does_nothing() {
    if done_in_child("fork::a_child_that_runs_passes_owns_the_registration_while_the_parent_does_nothing") {
        return;
    }
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let acceptor = accept_on(&owner, listener, trigger, None);
        let clients = door.connect_many(3);
        let acceptor = in_fork(acceptor, |mut acceptor| {
            let control = acceptor.control();
            owner.serve(&mut acceptor, 3);
            control.pause();
            owner.settle(&mut acceptor);
            control.resume();
            owner.settle(&mut acceptor);
            control.stop();
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Stopped);
            assert_eq!(owner.registrations().len(), 2, "the bell and the alarm");
        });
        assert_all_served(&clients);
        drop(acceptor);
        assert_eq!(owner.registrations(), []);
    }
}
