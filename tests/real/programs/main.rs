//! The examples, observed from outside: as processes, through their sockets and `/proc`.
//!
//! Nothing here links the library. Each test has its own server on its own port or path; every wait has a bound; tests count
//! descriptors, connections, wake-ups and passes, never time.

mod backpressure;
mod binaries;
mod client;
mod close_wait;
mod command_line;
mod exhausted;
mod flood;
mod server;

use std::thread;
use std::time::{Duration, Instant};

/// The bound of every wait.
const BOUND: Duration = Duration::from_secs(60);

/// Polls until the condition holds.
#[track_caller]
fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < BOUND, "timed out: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
