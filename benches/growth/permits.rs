//! The number of threads that release permits at once.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use epoll_acceptor::{Gate, Permit};

use crate::engines::abba::{Side, abba};
use crate::report::{Axis, Report};

const THREADS: [usize; 3] = [1, 2, 4];
const PERMITS: u32 = 1_000_000;

pub(crate) fn run(report: &mut Report) {
    let axis = Axis { name: "permits given back", of: "threads", base: "1 thread", per: "permit" };
    report.axis(axis);
    for threads in THREADS {
        let ratio = abba(report.blocks(), |side| match side {
            Side::Base => cost(1),
            Side::Point => cost(threads),
        });
        report.point(axis, threads, ratio, None);
    }
}

/// Returns the nanoseconds of wall time per permit, when `threads` threads release them at once.
fn cost(threads: usize) -> f64 {
    let gate = Gate::new(PERMITS);
    let share = PERMITS as usize / threads;
    let mut shares: Vec<Vec<Permit>> =
        (0..threads).map(|_| (0..share).map(|_| gate.try_acquire().expect("a permit")).collect()).collect();
    let barrier = Barrier::new(threads);
    let release = |share: &mut Vec<Permit>| {
        barrier.wait();
        let start = Instant::now();
        share.clear();
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let running: Vec<_> = shares.iter_mut().map(|share| scope.spawn(|| release(share))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread that ends")).collect()
    });
    let start = spans.iter().map(|(start, _)| *start).min().expect("a thread");
    let end = spans.iter().map(|(_, end)| *end).max().expect("a thread");
    end.duration_since(start).as_nanos() as f64 / (share * threads) as f64
}
