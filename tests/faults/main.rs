//! The acceptors on a kernel that fails: this binary defines some of libc's functions itself, and lets the
//! n-th call of a thread fail with whatever errno a plan says. Where what is left open is counted, a test has
//! a process of its own.

#[allow(dead_code, reason = "words for the other binary too")]
#[path = "../acceptors/support.rs"]
mod support;

mod interpose;

mod accepting;
mod calls;
mod controlling;
mod waiting;
