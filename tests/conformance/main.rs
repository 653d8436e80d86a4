//! The cases of the kernel's own self-test of epoll wake-ups that make sense with a listener as the source,
//! on the kernel through this crate's `Epoll`, and on the model. Numbers are those of the self-test
//! (`tools/testing/selftests/filesystems/epoll/epoll_wakeup_test.c`).
#![cfg(feature = "sim")]

mod cases;
mod kernel;
mod model;
mod races;

use std::io::Write as _;

/// Whether this is the long run.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Prints past the harness, which shows nothing of a test that passes.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
