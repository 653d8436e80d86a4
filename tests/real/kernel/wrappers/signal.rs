//! Signals: interrupted waits, and delivery through the signal mask.
#![allow(unsafe_code)]

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use epoll_acceptor::epoll::{SignalMask, Waker};
use epoll_acceptor::{Epoll, Events, Token};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

use crate::wrappers::support::*;

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Installs a handler that counts the signal. epoll_wait(2) returns EINTR despite `SA_RESTART`.
fn install_handler(signal: Signal) {
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
    unsafe { sigaction(signal, &action) }.unwrap();
}

fn parts() -> (Epoll, Events) {
    (Epoll::new().unwrap(), Events::with_capacity(4).unwrap())
}

#[test]
fn handler_interrupts_the_wait_without_error() {
    if done_in_child("wrappers::signal::handler_interrupts_the_wait_without_error") {
        return;
    }
    install_handler(Signal::SIGUSR1);
    static DONE: AtomicBool = AtomicBool::new(false);
    // SAFETY: takes no argument; the calling thread joins the thread that uses its id.
    let thread = unsafe { libc::pthread_self() };
    let sender = std::thread::spawn(move || {
        wait_until("the wait has ended", || {
            // SAFETY: the target thread is alive: it joins this one.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            DONE.load(Ordering::SeqCst)
        });
    });
    let (epoll, mut events) = parts();
    let waker = Waker::new(&epoll, Token(1)).unwrap();
    for timeout in [None, Some(LONG), Some(LONG + Duration::from_nanos(1))] {
        // An interrupted wait must not return events that were already read.
        waker.wake().unwrap();
        wait_until("the event is read", || !tokens_now(&epoll, &mut events).is_empty());
        let result = epoll.wait(&mut events, timeout).unwrap();
        assert!(result.interrupted());
        assert_eq!((result.count(), events.len()), (0, 0));
    }
    DONE.store(true, Ordering::SeqCst);
    sender.join().unwrap();
}

#[test]
fn sigstop_and_sigcont_interrupt_the_wait() {
    let Some(mut command) = child("wrappers::signal::sigstop_and_sigcont_interrupt_the_wait") else {
        let (epoll, mut events) = parts();
        let result = epoll.wait(&mut events, None).unwrap();
        assert!(result.interrupted() && result.count() == 0);
        println!("interrupted");
        return;
    };
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let status = std::cell::Cell::new(None);
    wait_until("the child has exited", || {
        kill(pid, Signal::SIGSTOP).unwrap();
        wait_until("the child is stopped or dead", || {
            status.set(child.try_wait().unwrap());
            status.get().is_some() || state_of(pid) == Some('T')
        });
        if status.get().is_none() {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        status.get().is_some()
    });
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(status.get().is_some_and(|status| status.success()), "{output}");
    assert!(output.contains("interrupted"), "{output}");
}

/// Returns the state letter of proc_pid_stat(5).
fn state_of(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn mask_unblocks_a_signal_only_during_the_wait() {
    if done_in_child("wrappers::signal::mask_unblocks_a_signal_only_during_the_wait") {
        return;
    }
    install_handler(Signal::SIGUSR2);
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

        let result = epoll.wait_masked(&mut events, timeout, &inside).unwrap();
        assert!(result.interrupted() && result.count() == 0);
        assert_eq!(HANDLED.load(Ordering::SeqCst) as usize, handled + 1);
    }
    assert!(SignalMask::of_thread().unwrap().contains(libc::SIGUSR2), "the thread's own mask is restored");
}

#[test]
fn ready_event_precedes_a_pending_signal() {
    if done_in_child("wrappers::signal::ready_event_precedes_a_pending_signal") {
        return;
    }
    install_handler(Signal::SIGUSR2);
    let (epoll, mut events) = parts();
    let waker = Waker::new(&epoll, Token(1)).unwrap();
    let outside = SignalMask::of_thread().unwrap().block(libc::SIGUSR2).unwrap();
    outside.set_for_thread().unwrap();
    raise(libc::SIGUSR2);
    waker.wake().unwrap();
    let result = epoll.wait_masked(&mut events, None, &SignalMask::empty()).unwrap();
    assert_eq!((result.count(), result.interrupted()), (1, false));
    events.clear();
    assert!(epoll.wait_masked(&mut events, None, &SignalMask::empty()).unwrap().interrupted());
}

#[test]
fn masked_wait_of_zero_delivers_no_signal() {
    if done_in_child("wrappers::signal::masked_wait_of_zero_delivers_no_signal") {
        return;
    }
    install_handler(Signal::SIGUSR2);
    let (epoll, mut events) = parts();
    SignalMask::of_thread().unwrap().block(libc::SIGUSR2).unwrap().set_for_thread().unwrap();
    raise(libc::SIGUSR2);
    let result = epoll.wait_masked(&mut events, Some(Duration::ZERO), &SignalMask::empty()).unwrap();
    assert!(!result.interrupted());
    assert_eq!(HANDLED.load(Ordering::SeqCst), 0);
}

#[test]
fn mask_contains_the_blocked_signals() {
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
fn mask_rejects_numbers_that_are_not_signals() {
    for number in [0, -1, 1_000] {
        let error = SignalMask::empty().block(number).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(SignalMask::full().unblock(number).is_err());
        assert!(!SignalMask::full().contains(number));
    }
}

/// Sends a signal to the calling thread.
fn raise(signal: i32) {
    // SAFETY: takes no pointer, and the calling thread is alive.
    assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
}
