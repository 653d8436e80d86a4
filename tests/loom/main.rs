//! The gate and the notifier across threads, in every interleaving that loom can tell apart.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --features sim,_loom --test loom`. `LOOM_MAX_PREEMPTIONS=3` bounds how often a
//! thread is interrupted where it does not yield; without it the search is exhaustive. `LOOM_MAX_DURATION=60` ends each
//! scenario after 60 seconds. Each prints to stderr what it covered (`-- --nocapture` shows it).
//!
//! Threads of this crate share a gate and a notifier; everything else belongs to one owner. So the kernel here belongs
//! to its owner alone (`owner.rs`), the acceptor is the crate's own, and threads meet only in the gate and the notifier.
//! A thread that sleeps forever is a deadlock, which loom reports: that is P1 and P11. The limit (P3), the permits in use
//! (P4) and the commands (P9) are asserted.
//!
//! `mutants.rs` runs the same scenarios with one published fault at a time, and requires that loom finds it.
#![cfg(loom)]

mod model;
mod owner;
mod scenarios;
#[path = "../known_bugs/test_gate.rs"]
mod test_gate;
#[allow(dead_code, reason = "loom runs those whose fault is a race")]
#[path = "../known_bugs/faulty_gates.rs"]
mod faulty_gates;
mod races;
mod fast_path;
mod commands;
mod gate;
mod tasks;
mod peers;
mod mutants;
