//! A forked child shares the parent's epoll: what it drops must not delete the parent's registration.
#![allow(unsafe_code)]

use std::time::Duration;

use epoll_acceptor::{Acceptor, State};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::support::{Any, Kind, Owner, SHORT, TRIGGERS, accept_on, assert_all_served, done_in_child};

/// Runs `act` in a forked child, on its copy of the acceptor, and waits for its end.
fn in_fork(acceptor: Any, act: impl FnOnce(Any)) -> Any {
    // SAFETY: this process runs one test on one thread, so the child finds no lock held.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            act(acceptor);
            // SAFETY: exits without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            acceptor
        }
    }
}

#[test]
fn drop_in_the_child_keeps_the_registration() {
    if done_in_child("fork::drop_in_the_child_keeps_the_registration") {
        return;
    }
    let acts: [fn(Any); 3] = [
        drop,
        |acceptor| drop(acceptor.into_listener()),
        // This wakes the parent, which finds no request: the flag is set in the child's memory.
        |acceptor| acceptor.control().stop(),
    ];
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for act in acts {
                let (listener, endpoint) = kind.listen();
                let mut owner = Owner::new();
                let acceptor = accept_on(&owner, listener, trigger, None);
                let before = owner.registrations();
                let mut acceptor = in_fork(acceptor, act);
                assert_eq!(owner.registrations(), before);
                let clients = endpoint.connect_many(3);
                owner.serve(&mut acceptor, 3);
                assert_all_served(&clients);
                // The waker still works.
                let control = acceptor.control();
                owner.settle(&mut acceptor);
                let pause = control.pause();
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.state(), State::Paused);
                let client = endpoint.connect();
                assert_eq!(owner.wait(SHORT), 0);
                drop(pause);
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
fn drop_in_the_parent_deletes_the_registration() {
    if done_in_child("fork::drop_in_the_parent_deletes_the_registration") {
        return;
    }
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    // SAFETY: as above; this child only waits for a signal, and the alarm ends it if none comes.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            // SAFETY: the calls take no pointer.
            unsafe {
                libc::alarm(20);
                libc::pause();
            }
        },
        ForkResult::Parent { child } => child,
    };
    drop(acceptor);
    let _client = endpoint.connect();
    assert_eq!(owner.wait(SHORT), 0);
    assert_eq!(owner.registrations(), []);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
}

#[test]
fn child_that_runs_passes_owns_the_registration() {
    if done_in_child("fork::child_that_runs_passes_owns_the_registration") {
        return;
    }
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let acceptor = accept_on(&owner, listener, trigger, None);
        let clients = endpoint.connect_many(3);
        let acceptor = in_fork(acceptor, |mut acceptor| {
            let control = acceptor.control();
            owner.serve(&mut acceptor, 3);
            let pause = control.pause();
            owner.settle(&mut acceptor);
            drop(pause);
            owner.settle(&mut acceptor);
            control.stop();
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Stopped);
            assert_eq!(owner.registrations().len(), 2, "the waker and the alarm");
        });
        assert_all_served(&clients);
        drop(acceptor);
        assert_eq!(owner.registrations(), []);
    }
}
