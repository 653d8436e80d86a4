//! The racing cases on the kernel, which must lose no wakeup, and their deterministic part on the model.

use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use epoll_acceptor::sim::kernel::{Sleep, Thread};
use epoll_acceptor::socket::{AcceptFlags, accept};
use epoll_acceptor::{Epoll, Events, Interest, Token};

use crate::conformance::cases::{System, Trigger};
use crate::conformance::kernel::{connect, interest, listener, wait};
use crate::conformance::model::Model;
use crate::parity::sys::share_limit;
use crate::{bound, report};

/// The time limit of every wait, generous enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Case 59: one thread waits, another re-arms the edge each time.
#[test]
fn modify_in_another_thread_gives_an_event() {
    let _limit = share_limit();
    let rounds = bound(1_000, 5_000, 100_000);
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    epoll.add(&listener, Token(0), interest(Trigger::Edge)).unwrap();
    let _client = connect(&listener);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..rounds {
                until(|| taken.load(Ordering::Acquire) == round);
                epoll.modify(&listener, Token(0), interest(Trigger::Edge)).unwrap();
            }
        });
        for round in 1..=rounds {
            assert_eq!(wait(&epoll, 1, Some(TIMEOUT)), 1, "round {round}");
            taken.store(round, Ordering::Release);
        }
    });
    report(&format!("conformance: case 59, {rounds} rounds, none lost"));
}

/// Case 60: ten threads on one epoll, ten edge-triggered listeners.
#[test]
fn threads_lose_no_wakeup_of_many_listeners() {
    let _limit = share_limit();
    let rounds = bound(30, 100, 300);
    let listeners: Vec<TcpListener> = (0..10).map(|_| listener()).collect();
    let (epoll, end) = (Epoll::new().unwrap(), listener());
    for (token, listener) in (0..).zip(&listeners) {
        epoll.add(listener, Token(token), interest(Trigger::Edge)).unwrap();
    }
    let accepted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| accept_until_end(&epoll, &listeners, &accepted));
        }
        for round in 1..=rounds {
            let _clients: Vec<_> = listeners.iter().map(connect).collect();
            until(|| accepted.load(Ordering::Acquire) == 10 * round);
        }
        // Level-triggered and never accepted: it wakes all threads, one after the other.
        epoll.add(&end, Token(10), Interest::IN).unwrap();
        drop(connect(&end));
    });
    report(&format!("conformance: case 60, {} connections in {rounds} rounds, none lost", 10 * rounds));
}

fn accept_until_end(epoll: &Epoll, listeners: &[TcpListener], accepted: &AtomicUsize) {
    let mut events = Events::with_capacity(1).unwrap();
    loop {
        epoll.wait(&mut events, None).unwrap();
        let Some(Token(token)) = events.next().map(|event| event.token()) else { continue };
        let Some(listener) = listeners.get(usize::try_from(token).unwrap()) else { return };
        accept(listener, AcceptFlags::default()).expect("one connection per event");
        accepted.fetch_add(1, Ordering::Release);
    }
}

/// Case 61: this wait or the next reports an arrival at the deadline.
#[test]
fn arrival_at_the_deadline_is_not_lost() {
    let _limit = share_limit();
    let rounds: u64 = bound(50, 200, 1_000);
    let (listener, epoll, together) = (listener(), Epoll::new().unwrap(), Barrier::new(2));
    epoll.add(&listener, Token(0), interest(Trigger::Edge)).unwrap();
    let timeout = Duration::from_micros(500);
    let in_time = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                together.wait();
                in_time.fetch_add(wait(&epoll, 1, Some(timeout)), Ordering::Relaxed);
                together.wait();
                together.wait();
            }
        });
        for round in 0..rounds {
            let before = in_time.load(Ordering::Relaxed);
            together.wait();
            let start = Instant::now();
            let later = Duration::from_micros(20 * (round % 8));
            until(|| start.elapsed() >= timeout + later);
            let _client = connect(&listener);
            together.wait();
            let first = in_time.load(Ordering::Relaxed) - before;
            assert_eq!(first + wait(&epoll, 1, Some(Duration::ZERO)), 1, "round {round}");
            accept(&listener, AcceptFlags::default()).unwrap();
            together.wait();
        }
    });
    let in_time = in_time.into_inner();
    report(&format!("conformance: case 61, {rounds} rounds, {in_time} before the deadline, none lost"));
}

/// Case 61 on the model: an arrival before and after the deadline.
#[test]
fn model_keeps_an_arrival_at_the_deadline() {
    for arrives_first in [true, false] {
        let mut system = Model::new(1, 1);
        system.watch(0, 0, Trigger::Edge);
        let epoll = system.epolls[0];
        assert_eq!(system.kernel.sleep(epoll, Thread(0), 1, Some(10)), Ok(Sleep::Asleep));
        if arrives_first {
            system.connect(0);
            system.kernel.advance(10);
        } else {
            system.kernel.advance(10);
            system.connect(0);
        }
        let Ok(Sleep::Returned(events)) = system.kernel.run(Thread(0)) else { panic!("not timed out") };
        assert_eq!(events.len(), usize::from(arrives_first));
        assert_eq!(system.wait(0, 1), usize::from(!arrives_first));
    }
}

/// Cases 62 and 63: a wait with a nanosecond timeout returns ready events at once, and otherwise not before the timeout.
#[test]
fn nanosecond_wait_returns_at_once_or_on_time() {
    let _limit = share_limit();
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    epoll.add(&listener, Token(0), interest(Trigger::Level)).unwrap();
    let (start, timeout) = (Instant::now(), Duration::from_micros(10_250));
    assert_eq!(wait(&epoll, 1, Some(timeout)), 0);
    assert!(start.elapsed() >= timeout, "returned 0 before the deadline");
    let _client = connect(&listener);
    assert_eq!([wait(&epoll, 1, Some(TIMEOUT)), wait(&epoll, 1, Some(TIMEOUT))], [1, 1]);
}

/// Case 65: waits with timeout 0 of 64 threads report a listener that is always ready. Kernels before 2026 sometimes miss
/// it, so misses are counted and do not fail the test.
#[test]
fn zero_timeout_waits_see_a_ready_listener() {
    let _limit = share_limit();
    let waits = bound(100, 200, 10_000);
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    epoll.add(&listener, Token(0), interest(Trigger::Level)).unwrap();
    let _client = connect(&listener);
    let seen: usize = std::thread::scope(|scope| {
        let waiting = || (0..waits).map(|_| wait(&epoll, 1, Some(Duration::ZERO))).sum::<usize>();
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(waiting)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wait(&epoll, 1, Some(Duration::ZERO)), 1, "the listener is still ready");
    report(&format!(
        "conformance: case 65, {} waits with timeout 0, {} without an event",
        64 * waits,
        64 * waits - seen
    ));
}

/// Waits until another thread makes the condition true.
fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < TIMEOUT, "timed out");
        std::thread::yield_now();
    }
}
