//! What grows with what: `cargo bench --bench growth [-- --json] [--quick]`.
//!
//! The cost of a connection (from the wait to being ready for the next one) as five things grow: how many are queued, how
//! many a pass may take, how many other descriptors the epoll watches, how many acceptors share a gate, how many threads give permits back. Every
//! figure is a ratio to the base point of its row, taken in turns with it (base, point, point, base) in one process, and
//! the middle of several; the base stands beside itself too, and so tells how much of a figure is noise. What the figures
//! say, and why where they are not flat: docs/benchmarks.md.

#[path = "../engines/mod.rs"]
mod engines;

mod budget;
mod gates;
mod permits;
mod queue;
mod registered;
mod report;

use engines::args::{Args, all_descriptors};
use report::Report;

fn main() {
    let args = Args::parse("growth", "What the cost of a connection grows with.");
    let descriptors = all_descriptors();
    let mut report = Report::new(args);
    queue::run(&mut report, descriptors);
    budget::run(&mut report);
    registered::run(&mut report, descriptors);
    gates::with_room(&mut report);
    gates::full(&mut report);
    permits::run(&mut report);
    report.finish();
}
