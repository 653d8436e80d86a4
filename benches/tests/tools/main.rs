//! The tools, run for as short as possible.

mod handover;
mod soak;
