//! The kernel's self-test of epoll wakeups with a listener as the source, on the kernel through this crate's
//! `Epoll` and on the model.
//!
//! Case numbers are those of `tools/testing/selftests/filesystems/epoll/epoll_wakeup_test.c`. Cases that do not apply
//! to a listener are left out.
#![cfg(feature = "sim")]

mod cases;
mod kernel;
mod model;
mod races;

use std::io::Write as _;

/// Returns whether the thorough run is requested.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Prints to stderr past the capture of the test harness.
fn report(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
