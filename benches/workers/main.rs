//! Several workers on one address: `cargo bench --bench workers [-- --json] [--quick] [--workers N]`.
//!
//! Clients in another process connect, send one byte, wait for one, and reset. Each way of sharing the work is played in
//! short rounds, all in turns. What the figures say, and which way to choose: docs/benchmarks.md. They are of this
//! machine, its cores shared by workers and clients; compare the rows of one run.

#[path = "../engines/mod.rs"]
mod engines;

mod clients;
mod report;
mod way;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clients::Load;
use engines::args::{Args, all_descriptors};
use report::Row;
use way::Way;
use worker::{Table, Tally, Usage};

fn main() {
    if clients::is_child() {
        return clients::play();
    }
    let args = Args::parse("workers", "Several workers on one address, by the way they share it.");
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
                    play(row, &table, Duration::from_millis(time));
                }
            }
            rows.iter_mut().for_each(|row| row.print(args.json));
        }
    }
}

/// One round of one row.
fn play(row: &mut Row, table: &Table, time: Duration) {
    let (address, workers) = row.way.open(row.workers);
    let stop = &AtomicBool::new(false);
    let before = Usage::now();
    let (tallies, latencies) = thread::scope(|scope| {
        let running: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || {
                    worker.run(table, stop);
                    worker.tally
                })
            })
            .collect();
        let latencies = clients::run(address, row.load, time);
        stop.store(true, Ordering::Relaxed);
        let tallies: Vec<Tally> =
            running.into_iter().map(|worker| worker.join().expect("a worker that ends")).collect();
        (tallies, latencies)
    });
    row.round(&tallies, latencies, time);
    row.usage.add_since(before);
}
