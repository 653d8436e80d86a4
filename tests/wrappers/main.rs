//! The wrappers of the system calls, against the real kernel: each test is a fact.

mod support;

mod accept;
mod busy_poll;
mod compile;
mod control;
mod events;
mod fallback;
mod interest;
mod nesting;
mod peer;
mod queue;
mod registration;
mod signal;
mod timeout;
mod traits;
mod trigger;
mod waker;
