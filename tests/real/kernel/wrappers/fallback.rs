//! The fallback for kernels without `epoll_pwait2`, which a seccomp filter simulates.

use std::time::{Duration, Instant};

use epoll_acceptor::epoll::{SignalMask, Waker};
use epoll_acceptor::{Epoll, Events, Token};

use crate::wrappers::support::*;

const SUB_MILLISECOND: Duration = Duration::from_micros(1_500);

#[test]
fn enosys_rounds_up_to_milliseconds() {
    if done_in_child("wrappers::fallback::enosys_rounds_up_to_milliseconds") {
        return;
    }
    rounds_up_and_remembers(libc::ENOSYS);
}

#[test]
fn eperm_of_a_filter_rounds_up_to_milliseconds() {
    if done_in_child("wrappers::fallback::eperm_of_a_filter_rounds_up_to_milliseconds") {
        return;
    }
    rounds_up_and_remembers(libc::EPERM);
}

fn rounds_up_and_remembers(errno: i32) {
    filter(&[libc::SYS_epoll_pwait2], Verdict::Fail(errno));
    let epoll = Epoll::new().unwrap();
    let mut events = Events::with_capacity(1).unwrap();
    let begin = Instant::now();
    let result = epoll.wait(&mut events, Some(SUB_MILLISECOND)).unwrap();
    assert_eq!((result.count(), result.interrupted()), (0, false));
    assert!(begin.elapsed() >= Duration::from_millis(2), "rounded down");

    // The process has recorded the lack: from here on, the call would kill it.
    filter(&[libc::SYS_epoll_pwait2], Verdict::Kill);
    epoll.wait(&mut events, Some(SUB_MILLISECOND)).unwrap();
    epoll.wait_masked(&mut events, Some(SUB_MILLISECOND), &SignalMask::empty()).unwrap();
    let waker = Waker::new(&epoll, Token(3)).unwrap();
    waker.wake().unwrap();
    assert_eq!(epoll.wait(&mut events, Some(Duration::MAX)).unwrap().count(), 1);
}

#[test]
fn whole_milliseconds_never_call_epoll_pwait2() {
    if done_in_child("wrappers::fallback::whole_milliseconds_never_call_epoll_pwait2") {
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
