//! Signals: no error, no lost events, and let in only where the mask says so.
#![allow(unsafe_code)]

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use epoll_acceptor::{Epoll, Events, SignalMask, Token, Waker};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

use crate::support::*;

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Counts a signal from now on; `SA_RESTART` is asked for, and epoll_wait(2) does not care.
fn handle(signal: Signal) {
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
    unsafe { sigaction(signal, &action) }.unwrap();
}

fn parts() -> (Epoll, Events) {
    (Epoll::new().unwrap(), Events::with_capacity(4).unwrap())
}

#[test]
fn a_handler_ends_the_wait_without_an_error() {
    if done_in_child("signal::a_handler_ends_the_wait_without_an_error") {
        return;
    }
    handle(Signal::SIGUSR1);
    static DONE: AtomicBool = AtomicBool::new(false);
    // SAFETY: names the calling thread, which lives until it has joined the one that uses the name.
    let thread = unsafe { libc::pthread_self() };
    let sender = std::thread::spawn(move || {
        until("the wait has ended", || {
            // SAFETY: the thread waits for this one to end.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            DONE.load(Ordering::SeqCst)
        });
    });
    let (epoll, mut events) = parts();
    let waker = Waker::new(&epoll, Token(1)).unwrap();
    for timeout in [None, Some(LONG), Some(LONG + Duration::from_nanos(1))] {
        // A batch that was read to its end must not come back.
        waker.wake().unwrap();
        until("the event is read", || !tokens_now(&epoll, &mut events).is_empty());
        let waited = epoll.wait(&mut events, timeout).unwrap();
        assert!(waited.interrupted());
        assert_eq!((waited.count(), events.len()), (0, 0));
    }
    DONE.store(true, Ordering::SeqCst);
    sender.join().unwrap();
}

#[test]
fn stopping_and_continuing_ends_the_wait_without_any_handler() {
    let Some(mut command) = child("signal::stopping_and_continuing_ends_the_wait_without_any_handler") else {
        let (epoll, mut events) = parts();
        let waited = epoll.wait(&mut events, None).unwrap();
        assert!(waited.interrupted() && waited.count() == 0);
        println!("interrupted");
        return;
    };
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let status = std::cell::Cell::new(None);
    until("the child has ended", || {
        kill(pid, Signal::SIGSTOP).unwrap();
        until("the child is stopped or dead", || {
            status.set(child.try_wait().unwrap());
            status.get().is_some() || state_of(pid) == Some('T')
        });
        if status.get().is_none() {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        status.get().is_some()
    });
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.get().is_some_and(|status| status.success()), "{said}");
    assert!(said.contains("interrupted"), "{said}");
}

/// The letter of proc_pid_stat(5).
fn state_of(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_blocked_signal_is_let_in_by_the_mask_and_only_there() {
    if done_in_child("signal::a_blocked_signal_is_let_in_by_the_mask_and_only_there") {
        return;
    }
    handle(Signal::SIGUSR2);
    let (epoll, mut events) = parts();
    let outside = SignalMask::of_thread().unwrap().block(libc::SIGUSR2).unwrap();
    outside.set_for_thread().unwrap();
    let inside = outside.unblock(libc::SIGUSR2).unwrap();

    for (handled, timeout) in [None, Some(LONG), Some(LONG + Duration::from_nanos(1))].into_iter().enumerate()
    {
        raise(libc::SIGUSR2);
        let pending = epoll.wait(&mut events, Some(Duration::from_nanos(1))).unwrap();
        assert!(!pending.interrupted());
        assert_eq!(HANDLED.load(Ordering::SeqCst) as usize, handled);

        let waited = epoll.wait_masked(&mut events, timeout, &inside).unwrap();
        assert!(waited.interrupted() && waited.count() == 0);
        assert_eq!(HANDLED.load(Ordering::SeqCst) as usize, handled + 1);
    }
    assert!(SignalMask::of_thread().unwrap().contains(libc::SIGUSR2), "the thread's own mask is back");
}

#[test]
fn an_event_wins_over_a_pending_signal() {
    if done_in_child("signal::an_event_wins_over_a_pending_signal") {
        return;
    }
    handle(Signal::SIGUSR2);
    let (epoll, mut events) = parts();
    let waker = Waker::new(&epoll, Token(1)).unwrap();
    let outside = SignalMask::of_thread().unwrap().block(libc::SIGUSR2).unwrap();
    outside.set_for_thread().unwrap();
    raise(libc::SIGUSR2);
    waker.wake().unwrap();
    let waited = epoll.wait_masked(&mut events, None, &SignalMask::empty()).unwrap();
    assert_eq!((waited.count(), waited.interrupted()), (1, false));
    events.clear();
    assert!(epoll.wait_masked(&mut events, None, &SignalMask::empty()).unwrap().interrupted());
}

#[test]
fn a_masked_wait_of_zero_lets_no_signal_in() {
    if done_in_child("signal::a_masked_wait_of_zero_lets_no_signal_in") {
        return;
    }
    handle(Signal::SIGUSR2);
    let (epoll, mut events) = parts();
    SignalMask::of_thread().unwrap().block(libc::SIGUSR2).unwrap().set_for_thread().unwrap();
    raise(libc::SIGUSR2);
    let waited = epoll.wait_masked(&mut events, Some(Duration::ZERO), &SignalMask::empty()).unwrap();
    assert!(!waited.interrupted());
    assert_eq!(HANDLED.load(Ordering::SeqCst), 0);
}

#[test]
fn a_mask_is_what_was_put_into_it() {
    let mask = SignalMask::empty().block(libc::SIGTERM).unwrap().block(libc::SIGRTMIN()).unwrap();
    assert!(mask.contains(libc::SIGTERM) && mask.contains(libc::SIGRTMIN()));
    assert!(!mask.contains(libc::SIGINT));
    assert!(!mask.unblock(libc::SIGTERM).unwrap().contains(libc::SIGTERM));
    assert!(SignalMask::full().contains(libc::SIGTERM));
    assert_eq!(format!("{:?}", SignalMask::empty()), "SignalMask{}");
    let printed = SignalMask::empty().block(libc::SIGTERM).unwrap().block(libc::SIGHUP).unwrap();
    assert_eq!(format!("{printed:?}"), "SignalMask{SIGHUP, SIGTERM}");
}

#[test]
fn a_number_that_is_no_signal_is_invalid_input() {
    for number in [0, -1, 1_000] {
        let error = SignalMask::empty().block(number).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(SignalMask::full().unblock(number).is_err());
        assert!(!SignalMask::full().contains(number));
    }
}

/// Sends it to the calling thread.
fn raise(signal: i32) {
    // SAFETY: takes no pointer, and the calling thread is alive.
    assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
}
