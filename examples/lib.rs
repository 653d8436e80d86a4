//! The examples are programs: `cargo run --release --example close_wait`, and `echo`.
