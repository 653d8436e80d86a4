//! Handover of listeners between processes, tested on the real kernel.

mod from_env;
mod rights;
mod support;
