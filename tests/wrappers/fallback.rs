//! Kernels without `epoll_pwait2`, as a filter of system calls makes them.

use std::time::{Duration, Instant};

use epoll_acceptor::{Epoll, Events, SignalMask, Token, Waker};

use crate::support::*;

const FINER: Duration = Duration::from_micros(1_500);

#[test]
fn without_epoll_pwait2_a_wait_rounds_up_to_milliseconds() {
    if done_in_child("fallback::without_epoll_pwait2_a_wait_rounds_up_to_milliseconds") {
        return;
    }
    rounds_up_and_remembers(libc::ENOSYS);
}

#[test]
fn a_filter_that_says_eperm_counts_as_a_kernel_without() {
    if done_in_child("fallback::a_filter_that_says_eperm_counts_as_a_kernel_without") {
        return;
    }
    rounds_up_and_remembers(libc::EPERM);
}

fn rounds_up_and_remembers(errno: i32) {
    filter(&[libc::SYS_epoll_pwait2], Verdict::Fail(errno));
    let epoll = Epoll::new().unwrap();
    let mut events = Events::with_capacity(1).unwrap();
    let begin = Instant::now();
    let waited = epoll.wait(&mut events, Some(FINER)).unwrap();
    assert_eq!((waited.count(), waited.interrupted()), (0, false));
    assert!(begin.elapsed() >= Duration::from_millis(2), "rounded down");

    // Asked once: from here on, the call would end the process.
    filter(&[libc::SYS_epoll_pwait2], Verdict::Kill);
    epoll.wait(&mut events, Some(FINER)).unwrap();
    epoll.wait_masked(&mut events, Some(FINER), &SignalMask::empty()).unwrap();
    let waker = Waker::new(&epoll, Token(3)).unwrap();
    waker.wake().unwrap();
    assert_eq!(epoll.wait(&mut events, Some(Duration::MAX)).unwrap().count(), 1);
}

#[test]
fn whole_milliseconds_and_for_ever_never_need_epoll_pwait2() {
    if done_in_child("fallback::whole_milliseconds_and_for_ever_never_need_epoll_pwait2") {
        return;
    }
    filter(&[libc::SYS_epoll_pwait2], Verdict::Kill);
    let epoll = Epoll::new().unwrap();
    let mut events = Events::with_capacity(1).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(1)] {
        assert_eq!(epoll.wait(&mut events, Some(timeout)).unwrap().count(), 0);
    }
    let waker = Waker::new(&epoll, Token(3)).unwrap();
    waker.wake().unwrap();
    assert_eq!(epoll.wait(&mut events, None).unwrap().count(), 1);
}
