//! Handover of listeners between processes, tested on the real kernel.
#![cfg(feature = "handover")]

mod from_env;
mod rights;
mod support;
