//! Several workers on one address: `cargo bench -p benches --bench workers [-- --json] [--quick] [--workers N]`.
//!
//! Clients in another process connect, send one byte, wait for one, and reset. Each way of sharing the address runs in short
//! rounds, all ways in turn. docs/benchmarks.md discusses the figures, and which way to choose. Workers and clients share
//! the cores of this machine; compare the rows of one run.

#[path = "../args.rs"]
mod args;
#[path = "../engines/mod.rs"]
mod engines;

mod clients;
mod report;
mod way;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use args::{Args, all_descriptors};
use clients::Load;
use report::Row;
use way::Way;
use worker::{Stats, Table, Usage};

fn main() {
    if clients::is_child() {
        return clients::run_child();
    }
    let args = Args::parse("workers", "Compares the ways in which several workers share one address.");
    let (rounds, time) = if args.quick { (1, 80) } else { (4, 700) };
    let table = Table::new(all_descriptors());
    let numbers = args.workers.map_or(vec![2, 4], |workers| vec![workers]);
    if !args.json {
        report::head();
    }
    for load in Load::ALL {
        for &workers in &numbers {
            let mut rows = Way::ALL.map(|way| Row::new(way, workers, load));
            for _ in 0..rounds {
                for row in &mut rows {
                    run_round(row, &table, Duration::from_millis(time));
                }
            }
            rows.iter_mut().for_each(|row| row.print(args.json));
        }
    }
}

/// Runs one round of one row.
fn run_round(row: &mut Row, table: &Table, time: Duration) {
    let (address, workers) = row.way.open(row.workers);
    let stop = &AtomicBool::new(false);
    let before = Usage::now();
    let (stats, latencies) = thread::scope(|scope| {
        let running: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || {
                    worker.run(table, stop);
                    worker.stats
                })
            })
            .collect();
        let latencies = clients::run(address, row.load, time);
        stop.store(true, Ordering::Relaxed);
        let stats: Vec<Stats> =
            running.into_iter().map(|worker| worker.join().expect("a worker that ends")).collect();
        (stats, latencies)
    });
    row.add_round(&stats, latencies, time);
    row.usage.add_since(before);
}
