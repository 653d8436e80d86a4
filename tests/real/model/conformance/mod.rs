//! The kernel's self-test of epoll wakeups with a listener as the source, on the kernel through this crate's
//! `Epoll` and on the model.
//!
//! Case numbers are those of `tools/testing/selftests/filesystems/epoll/epoll_wakeup_test.c`. Cases that do not apply
//! to a listener are left out.

mod cases;
mod kernel;
mod model;
mod races;
