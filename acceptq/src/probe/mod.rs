//! Reads the state of accept queues and their owners from the kernel, without interpreting it.
//!
//! Read-only. Each function needs only the privileges that the kernel requires for its data. Data that is not
//! visible is `None` or counted as hidden, never guessed.

pub(crate) mod calls;
pub(crate) mod cgroup;
pub(crate) mod counters;
pub(crate) mod diag;
pub(crate) mod listener;
pub(crate) mod netns;
pub(crate) mod owners;
pub(crate) mod registration;
pub(crate) mod target;
pub(crate) mod targets;
pub(crate) mod threads;
pub(crate) mod connection;

pub(crate) use connection::{Connection, Phase};
pub(crate) use counters::Counters;
pub(crate) use diag::Diag;
pub(crate) use listener::{Address, Kind, Listener};
pub(crate) use netns::Namespace;
pub(crate) use owners::{Holder, Owners};
pub(crate) use registration::{Registration, Trigger};
pub(crate) use target::Target;
pub(crate) use targets::Targets;
pub(crate) use threads::{Activity, Thread};
