//! The gate and the wake-up across threads, in every interleaving that loom can tell apart.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --features sim --test loom`. `LOOM_MAX_PREEMPTIONS=3` bounds how often a
//! thread is interrupted where it did not ask for it; without it the search is exhaustive. `LOOM_MAX_DURATION=60` ends each
//! scenario after so many seconds. Each says on stderr what it covered (`-- --nocapture` shows it).
//!
//! What threads share in this crate is a gate and a notifier; everything else belongs to one owner. So the kernel
//! here is nobody's but the owner's (`owner.rs`), the acceptor is the crate's own, and the threads meet in the
//! gate and the notifier alone. Whoever sleeps for ever is a deadlock, which loom reports: that is P1 and P11. The
//! limit (P3), the books (P4) and the commands (P9) are asserted.
//!
//! `mutants.rs` gives the same scenarios a gate with one published fault at a time, and demands that loom finds it.
#![cfg(loom)]

mod model;
mod owner;
mod scenarios;
mod faulty;
mod commands;
mod sound;
mod peers;
mod mutants;
