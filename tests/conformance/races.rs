//! The cases that are a race: no wake-up is lost, on the kernel; and what of them is not a race, on the
//! model.

use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use epoll_acceptor::sim::kernel::{Sleep, Thread};
use epoll_acceptor::{AcceptFlags, Epoll, Events, Interest, Token, accept};

use crate::cases::{Trigger, World};
use crate::kernel::{connect, interest, listener, wait};
use crate::model::Model;
use crate::{say, thorough};

/// More than any of this takes, even on a machine that is busy with others.
const LONG: Duration = Duration::from_secs(20);

/// Case 59: one thread waits, another arms the edge anew each time.
#[test]
fn each_modify_from_another_thread_gives_an_event() {
    let rounds = if thorough() { 100_000 } else { 5_000 };
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
            assert_eq!(wait(&epoll, 1, Some(LONG)), 1, "round {round}");
            taken.store(round, Ordering::Release);
        }
    });
    say(&format!("conformance: case 59, {rounds} rounds, none lost"));
}

/// Case 60: ten threads on one epoll, ten edge-triggered listeners.
#[test]
fn ten_threads_lose_no_wake_up_of_ten_listeners() {
    let rounds = if thorough() { 300 } else { 100 };
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
        // Level-triggered and never accepted: it wakes them all, one after the other.
        epoll.add(&end, Token(10), Interest::IN).unwrap();
        drop(connect(&end));
    });
    say(&format!("conformance: case 60, {} connections in {rounds} rounds, none lost", 10 * rounds));
}

fn accept_until_end(epoll: &Epoll, listeners: &[TcpListener], accepted: &AtomicUsize) {
    let mut events = Events::with_capacity(1).unwrap();
    loop {
        epoll.wait(&mut events, None).unwrap();
        let Some(Token(token)) = events.next().map(|event| event.token()) else { continue };
        let Some(listener) = listeners.get(usize::try_from(token).unwrap()) else { return };
        accept(listener, AcceptFlags::default()).expect("one for each event");
        accepted.fetch_add(1, Ordering::Release);
    }
}

/// Case 61: an arrival at the moment in which the wait ends is in this wait or in the next.
#[test]
fn an_arrival_at_the_deadline_is_not_lost() {
    let rounds: u64 = if thorough() { 1_000 } else { 200 };
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
    say(&format!("conformance: case 61, {rounds} rounds, {in_time} before the deadline, none lost"));
}

/// Case 61 on the model: the arrival before the deadline, and after it.
#[test]
fn an_arrival_around_the_deadline_of_the_model_is_not_lost() {
    for arrives_first in [true, false] {
        let mut world = Model::new(1, 1);
        world.watch(0, 0, Trigger::Edge);
        let epoll = world.epolls[0];
        assert_eq!(world.kernel.sleep(epoll, Thread(0), 1, Some(10)), Ok(Sleep::Asleep));
        if arrives_first {
            world.connect(0);
            world.kernel.advance(10);
        } else {
            world.kernel.advance(10);
            world.connect(0);
        }
        let Ok(Sleep::Returned(events)) = world.kernel.run(Thread(0)) else { panic!("its time is over") };
        assert_eq!(events.len(), usize::from(arrives_first));
        assert_eq!(world.wait(0, 1), usize::from(!arrives_first));
    }
}

/// Cases 62 and 63: a wait in nanoseconds takes what is ready, and ends no earlier than it should if nothing
/// is.
#[test]
fn a_wait_in_nanoseconds_returns_at_once_or_not_early() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    epoll.add(&listener, Token(0), interest(Trigger::Level)).unwrap();
    let (start, timeout) = (Instant::now(), Duration::from_micros(10_250));
    assert_eq!(wait(&epoll, 1, Some(timeout)), 0);
    assert!(start.elapsed() >= timeout, "nothing is returned only at the deadline");
    let _client = connect(&listener);
    assert_eq!([wait(&epoll, 1, Some(LONG)), wait(&epoll, 1, Some(LONG))], [1, 1]);
}

/// Case 65: what is always ready is always reported, also to 64 threads that wait for no time. Kernels before
/// 2026 fail that now and then, so it is counted, and the count is not held against them.
#[test]
fn zero_waits_of_many_threads_see_what_is_always_ready() {
    let waits = if thorough() { 10_000 } else { 200 };
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    epoll.add(&listener, Token(0), interest(Trigger::Level)).unwrap();
    let _client = connect(&listener);
    let seen: usize = std::thread::scope(|scope| {
        let looking = || (0..waits).map(|_| wait(&epoll, 1, Some(Duration::ZERO))).sum::<usize>();
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(looking)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wait(&epoll, 1, Some(Duration::ZERO)), 1, "it is still there");
    say(&format!("conformance: case 65, {} zero waits, {} saw nothing", 64 * waits, 64 * waits - seen));
}

/// Waits for what another thread does.
fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "it does not come");
        std::thread::yield_now();
    }
}
