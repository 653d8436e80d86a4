//! Waking from other threads.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use epoll_acceptor::{Epoll, Events, Interest, Token, Waker};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::support::*;

fn parts() -> (Epoll, Events, Waker) {
    let epoll = Epoll::new().unwrap();
    let waker = Waker::new(&epoll, Token(7)).unwrap();
    (epoll, Events::with_capacity(4).unwrap(), waker)
}

#[test]
fn waking_from_another_thread_ends_the_wait() {
    let (epoll, mut events, waker) = parts();
    std::thread::scope(|scope| {
        scope.spawn(|| waker.wake().unwrap());
        assert_eq!(epoll.wait(&mut events, None).unwrap().count(), 1);
    });
    let event = events.next().unwrap();
    assert_eq!((event.token(), event.interest()), (Token(7), Interest::IN));
}

#[test]
fn calls_before_the_wait_are_one_event_and_calls_after_it_another() {
    let (epoll, mut events, waker) = parts();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "silent at first");
    for _ in 0..3 {
        for _ in 0..5 {
            waker.wake().unwrap();
        }
        assert_eq!(tokens_now(&epoll, &mut events), [7]);
        assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    }
}

#[test]
fn no_wake_is_lost_between_threads() {
    const ROUNDS: u32 = 2_000;

    let (epoll, mut events, waker) = parts();
    let asked = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                asked.store(round, Ordering::SeqCst);
                waker.wake().unwrap();
            }
        });
        while asked.load(Ordering::SeqCst) < ROUNDS {
            let waited = epoll.wait(&mut events, Some(LONG)).unwrap();
            assert_eq!(waited.count(), 1, "a wake was lost");
            events.clear();
        }
    });
}

#[test]
fn dropping_deletes_the_registration() {
    let (epoll, mut events, waker) = parts();
    let other = Waker::new(&epoll, Token(8)).unwrap();
    assert_eq!(registrations(&epoll).len(), 2);
    waker.wake().unwrap();
    drop(waker);
    assert_eq!(registrations(&epoll).len(), 1);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    other.wake().unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [8]);
}

#[test]
fn a_forked_child_does_not_silence_it() {
    if done_in_child("waker::a_forked_child_does_not_silence_it") {
        return;
    }
    let (epoll, mut events, waker) = parts();
    // SAFETY: the child only drops what closes descriptors and frees memory, which glibc and musl keep usable
    // after a fork, and leaves by `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(waker);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
        }
    }
    waker.wake().unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [7]);
}

#[test]
fn a_waker_registers_with_any_epoll_and_keeps_it_open() {
    let (epoll, mut events, _waker) = parts();
    let foreign: std::os::fd::OwnedFd = std::os::fd::AsFd::as_fd(&epoll).try_clone_to_owned().unwrap();
    let waker = Waker::new(&foreign, Token(9)).unwrap();
    drop(foreign);
    waker.wake().unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [9]);
    drop(waker);
    assert_eq!(registrations(&epoll).len(), 1);
}

#[test]
fn a_waker_needs_an_epoll() {
    let error = Waker::new(&listener(), Token(1)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("check that the epoll is one"), "{error}");
    assert_eq!(Waker::new(&eventfd(true), Token(1)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
