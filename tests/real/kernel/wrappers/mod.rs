//! The wrappers of the system calls, tested on the real kernel.

mod support;

mod accept;
mod epoll_ctl;
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
