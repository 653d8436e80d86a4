//! Waking an epoll from other threads.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use epoll_acceptor::epoll::Waker;
use epoll_acceptor::{Epoll, Events, Interest, Token};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::wrappers::support::*;

fn parts() -> (Epoll, Events, Waker) {
    let epoll = Epoll::new().unwrap();
    let waker = Waker::new(&epoll, Token(7)).unwrap();
    (epoll, Events::with_capacity(4).unwrap(), waker)
}

#[test]
fn wake_from_another_thread_ends_the_wait() {
    let (epoll, mut events, waker) = parts();
    std::thread::scope(|scope| {
        scope.spawn(|| waker.wake().unwrap());
        assert_eq!(epoll.wait(&mut events, None).unwrap().count(), 1);
    });
    let event = events.next().unwrap();
    assert_eq!((event.token(), event.interest()), (Token(7), Interest::IN));
}

#[test]
fn wakes_coalesce_until_the_next_wait() {
    let (epoll, mut events, waker) = parts();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "no event before the first wake");
    for _ in 0..3 {
        for _ in 0..5 {
            waker.wake().unwrap();
        }
        assert_eq!(tokens_now(&epoll, &mut events), [7]);
        assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    }
}

#[test]
fn wake_is_never_lost() {
    const ROUNDS: u32 = 2_000;

    let (epoll, mut events, waker) = parts();
    let last_wake = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                last_wake.store(round, Ordering::SeqCst);
                waker.wake().unwrap();
            }
        });
        while last_wake.load(Ordering::SeqCst) < ROUNDS {
            let result = epoll.wait(&mut events, Some(LONG)).unwrap();
            assert_eq!(result.count(), 1, "lost wakeup");
            events.clear();
        }
    });
}

#[test]
fn drop_deletes_the_wakers_registration() {
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
fn forked_child_keeps_the_parents_waker() {
    if done_in_child("wrappers::waker::forked_child_keeps_the_parents_waker") {
        return;
    }
    let (epoll, mut events, waker) = parts();
    // SAFETY: the child only closes descriptors and frees memory, which glibc and musl allow after a fork, then calls
    // `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(waker);
            // SAFETY: exits without running the parent's exit handlers.
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
fn waker_keeps_any_epoll_open() {
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
fn waker_on_a_non_epoll_is_invalid() {
    let error = Waker::new(&listener(), Token(1)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("pass an epoll"), "{error}");
    assert_eq!(Waker::new(&eventfd(true), Token(1)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
