//! Timeouts: no wait ends early, and no timeout is an error.

use std::time::{Duration, Instant};

use epoll_acceptor::epoll::{SignalMask, Waker};
use epoll_acceptor::{Epoll, Events, Token};

fn parts() -> (Epoll, Events) {
    (Epoll::new().unwrap(), Events::with_capacity(4).unwrap())
}

#[test]
fn zero_timeout_returns_at_once() {
    let (epoll, mut events) = parts();
    let waker = Waker::new(&epoll, Token(1)).unwrap();
    for mask in [None, Some(SignalMask::full())] {
        let mut wait = || match &mask {
            None => epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(),
            Some(mask) => epoll.wait_masked(&mut events, Some(Duration::ZERO), mask).unwrap(),
        };
        assert_eq!((wait().count(), wait().interrupted()), (0, false));
        waker.wake().unwrap();
        assert_eq!(wait().count(), 1);
        events.clear();
    }
}

#[test]
fn wait_never_ends_early() {
    let (epoll, mut events) = parts();
    for nanos in [1, 999_999, 1_000_000, 1_000_001, 1_500_000, 3_000_000, 7_999_999] {
        let timeout = Duration::from_nanos(nanos);
        let begin = Instant::now();
        let result = epoll.wait(&mut events, Some(timeout)).unwrap();
        assert_eq!((result.count(), result.interrupted()), (0, false));
        assert!(begin.elapsed() >= timeout, "{timeout:?}");
        let begin = Instant::now();
        epoll.wait_masked(&mut events, Some(timeout), &SignalMask::full()).unwrap();
        assert!(begin.elapsed() >= timeout, "{timeout:?}");
    }
}

#[test]
fn longest_timeouts_can_be_woken() {
    let timeouts = [
        None,
        Some(Duration::MAX),
        Some(Duration::from_secs(u64::MAX)),
        Some(Duration::from_secs(i64::MAX as u64)),
        Some(Duration::new(i64::MAX as u64, 999_999_999)),
        Some(Duration::from_millis(i32::MAX as u64)),
        Some(Duration::from_millis(i32::MAX as u64 + 1)),
        Some(Duration::from_millis(u64::MAX)),
        Some(Duration::from_nanos(u64::MAX)),
    ];
    let (epoll, mut events) = parts();
    let waker = Waker::new(&epoll, Token(1)).unwrap();
    for timeout in timeouts {
        for masked in [false, true] {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // The other thread may block before or after the wake: the wait must end in both cases.
                    std::thread::sleep(Duration::from_millis(2));
                    waker.wake().unwrap();
                });
                let result = if masked {
                    epoll.wait_masked(&mut events, timeout, &SignalMask::full()).unwrap()
                } else {
                    epoll.wait(&mut events, timeout).unwrap()
                };
                assert_eq!((result.count(), result.interrupted()), (1, false), "{timeout:?}");
                events.clear();
            });
        }
    }
}
