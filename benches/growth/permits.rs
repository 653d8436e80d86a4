//! As permits are given back by more and more threads at once.

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

/// Nanoseconds of wall time for each of all permits, given back by so many threads at once.
fn cost(threads: usize) -> f64 {
    let gate = Gate::new(PERMITS);
    let share = PERMITS as usize / threads;
    let mut shares: Vec<Vec<Permit>> =
        (0..threads).map(|_| (0..share).map(|_| gate.try_acquire().expect("room")).collect()).collect();
    let start_line = Barrier::new(threads);
    let give_back = |share: &mut Vec<Permit>| {
        start_line.wait();
        let start = Instant::now();
        share.clear();
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let running: Vec<_> = shares.iter_mut().map(|share| scope.spawn(|| give_back(share))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread that ends")).collect()
    });
    let start = spans.iter().map(|(start, _)| *start).min().expect("a thread");
    let end = spans.iter().map(|(_, end)| *end).max().expect("a thread");
    end.duration_since(start).as_nanos() as f64 / (share * threads) as f64
}
