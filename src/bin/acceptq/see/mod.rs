//! What can be seen of accept queues from outside. Facts only: what they mean is judged elsewhere.
//!
//! Nothing here changes anything on the machine, and nothing needs privileges that the fact itself does not
//! need. What could not be seen is `None`, or counted, never guessed.

pub(crate) mod counters;
pub(crate) mod diag;
pub(crate) mod listener;
pub(crate) mod owners;
pub(crate) mod registration;
pub(crate) mod target;
pub(crate) mod threads;
pub(crate) mod waiting;

pub(crate) use counters::Counters;
pub(crate) use diag::Diag;
pub(crate) use listener::{Address, Kind, Listener};
pub(crate) use owners::{Holder, Owners};
pub(crate) use registration::{How, Registration};
pub(crate) use target::Target;
pub(crate) use threads::{Doing, Thread};
pub(crate) use waiting::Waiting;
