//! The gate is linearizable: 4 to 8 threads call it at random, and a sequential gate explains every result, in an order
//! that no call contradicts which ended before another began. Beyond the bounds of tests/loom, and with real threads.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` plays more rounds.

mod checker;
mod model;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use epoll_acceptor::{Gate, Permit};

use crate::linearizable::checker::{Call, is_linearizable};
use crate::linearizable::model::{Op, Sequential};

/// A timeout that no passing test reaches, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);
/// Random calls per thread.
const CALLS: usize = 7;
const LIMIT_MAX: u32 = 3;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Wakes a thread.
struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// One thread: what it holds, and what it has called.
struct Caller<'a> {
    gate: &'a Gate,
    clock: &'a AtomicU64,
    random: Random,
    /// Permits, and whether their handshake is done.
    permits: VecDeque<(Permit, bool)>,
    calls: Vec<Call>,
    /// For the futures of this thread: unique among all threads.
    next_future: u64,
}

impl Caller<'_> {
    /// Makes a call and records it with its times.
    fn record<T>(&mut self, call: impl FnOnce(&Gate) -> (Op, T)) -> T {
        if self.random.below(3) == 0 {
            thread::yield_now();
        }
        let begin = self.clock.fetch_add(1, Ordering::SeqCst);
        let (op, result) = call(self.gate);
        let end = self.clock.fetch_add(1, Ordering::SeqCst);
        self.calls.push(Call { begin, end, op });
        result
    }

    fn release(&mut self) {
        if let Some((permit, done)) = self.permits.pop_front() {
            self.record(|_| (Op::Release { handshaking: !done }, drop(permit)));
        }
    }

    fn poll(
        &mut self,
        id: u64,
        future: Pin<&mut impl Future<Output = Permit>>,
        waker: &Waker,
    ) -> Option<Permit> {
        self.record(|_| match future.poll(&mut Context::from_waker(waker)) {
            Poll::Ready(permit) => (Op::Poll { id, ready: true }, Some(permit)),
            Poll::Pending => (Op::Poll { id, ready: false }, None),
        })
    }

    /// Awaits a permit; with `polls`, gives up after so many polls and drops the future.
    fn acquire(&mut self, polls: Option<u64>) {
        let gate = self.gate;
        self.next_future += 1;
        let (id, unpark) =
            (self.next_future, Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(true) }));
        let waker = Waker::from(Arc::clone(&unpark));
        let mut future = Box::pin(gate.acquire());
        let (begun, mut polled) = (Instant::now(), 0);
        loop {
            if polls.is_some_and(|polls| polled == polls) {
                self.record(|_| (Op::Cancel { id }, drop(future)));
                return;
            }
            if polls.is_some() || unpark.woken.swap(false, Ordering::Acquire) {
                polled += 1;
                if let Some(permit) = self.poll(id, future.as_mut(), &waker) {
                    self.permits.push_back((permit, false));
                    return;
                }
            } else {
                assert!(begun.elapsed() < LONG, "a waiter was not woken: {:?}", self.gate);
                thread::park_timeout(Duration::from_millis(100));
            }
        }
    }

    fn act(&mut self) {
        match self.random.below(12) {
            0..3 => {
                let permit = self.record(|gate| {
                    let permit = gate.try_acquire();
                    (Op::Try { granted: permit.is_some() }, permit)
                });
                self.permits.extend(permit.map(|permit| (permit, false)));
            }
            3..6 => self.release(),
            6 => {
                if let Some((permit, done)) = self.permits.pop_front() {
                    self.record(|_| (Op::HandshakeDone { first: !done }, permit.handshake_done()));
                    self.permits.push_back((permit, true));
                }
            }
            7 => {
                // Never 0: those that wait to the end would wait forever.
                let limit = 1 + u32::try_from(self.random.below(LIMIT_MAX.into())).unwrap();
                self.record(|gate| (Op::SetLimit(limit), gate.set_limit(limit)));
            }
            8..11 => {
                let polls = 1 + self.random.below(3);
                self.acquire(Some(polls));
            }
            // Holds nothing meanwhile, so that no two threads wait for each other.
            _ => {
                while !self.permits.is_empty() {
                    self.release();
                }
                self.acquire(None);
            }
        }
    }
}

/// Plays one round, and returns the sequential gate to compare with and the calls.
fn round(seed: u64) -> (Sequential, Vec<Call>) {
    let mut random = Random(seed);
    let limit = 1 + u32::try_from(random.below(LIMIT_MAX.into())).unwrap();
    let handshakes = (random.below(2) == 0).then_some(1 + u32::try_from(random.below(2)).unwrap());
    let threads = 4 + random.below(5);
    let builder = Gate::builder(limit);
    let gate = handshakes.map_or(builder.clone(), |handshakes| builder.handshakes(handshakes)).build();
    let (clock, start) = (AtomicU64::new(0), Barrier::new(usize::try_from(threads).unwrap()));
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        for number in 0..threads {
            let (gate, clock, start, sender) = (&gate, &clock, &start, sender.clone());
            let mut caller = Caller {
                gate,
                clock,
                random: Random(seed ^ (number + 1) << 40),
                permits: VecDeque::new(),
                calls: Vec::new(),
                next_future: number << 32,
            };
            scope.spawn(move || {
                start.wait();
                for _ in 0..CALLS {
                    caller.act();
                }
                while !caller.permits.is_empty() {
                    caller.release();
                }
                sender.send(caller.calls).unwrap();
            });
        }
    });
    drop(sender);
    assert_eq!((gate.in_use(), gate.handshakes_in_use()), (0, 0), "seed {seed}: a permit was lost");
    assert!(!gate.has_waiters(), "seed {seed}: a future that ended is in the queue");
    (Sequential::new(limit, handshakes), receiver.into_iter().flatten().collect())
}

#[test]
fn random_calls_of_many_threads_are_linearizable() {
    let rounds = if crate::thorough() { 100_000 } else { 300 };
    let mut calls_played = 0;
    for seed in 0..rounds {
        let (gate, calls) = round(seed);
        calls_played += calls.len();
        assert!(is_linearizable(&gate, &calls), "seed {seed}: no order explains {gate:?} and {calls:#?}");
    }
    eprintln!("linearizable: {rounds} rounds, {calls_played} calls");
}
