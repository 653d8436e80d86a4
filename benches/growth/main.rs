//! How the cost of a connection scales: `cargo bench -p benches --bench growth [-- --json] [--quick]`.
//!
//! The cost of a connection (from the wait until the next wait) against five numbers: of queued connections, of attempts per
//! pass, of other descriptors on the epoll, of acceptors that share a gate, and of threads that release permits. Every
//! figure is a ratio to the base point of its row, measured alternately with it (base, point, point, base) in one process,
//! and the median of several. The base is also compared with itself, which shows the noise. docs/benchmarks.md discusses the
//! figures.

#[path = "../args.rs"]
mod args;
#[path = "../engines/mod.rs"]
mod engines;

mod budget;
mod gates;
mod permits;
mod queue;
mod registered;
mod report;

use args::{Args, all_descriptors};
use report::Report;

fn main() {
    let args = Args::parse("growth", "Measures how the cost of a connection scales.");
    let descriptors = all_descriptors();
    let mut report = Report::new(args);
    queue::run(&mut report, descriptors);
    budget::run(&mut report);
    registered::run(&mut report, descriptors);
    gates::not_full(&mut report);
    gates::full(&mut report);
    permits::run(&mut report);
    report.finish();
}
