//! The examples, seen from outside: as processes, through their sockets and `/proc`.
//!
//! Nothing here links the library. Each test has a server of its own on a port or path of its own; every wait
//! has a bound; what is counted is descriptors, connections, wake-ups and passes, never time.

mod backpressure;
mod binaries;
mod client;
mod close_wait;
mod command_line;
mod exhausted;
mod flood;
mod metrics;
mod hosted;
mod http;
mod handover;
mod server;
mod soak;

use std::thread;
use std::time::{Duration, Instant};

/// No wait takes so long unless something is broken.
const BOUND: Duration = Duration::from_secs(60);

/// Looks again and again until something has come true.
#[track_caller]
fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < BOUND, "this did not come true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
