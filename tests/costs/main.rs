//! What a connection costs its acceptor, exactly: system calls and allocations. The third price, instructions, is
//! counted by `cargo bench --bench instructions`. A figure here that grows is a failure; one that falls is as well, so
//! that the table stays true.

#[path = "../../benches/engines/mod.rs"]
mod engines;

mod allocations;
mod calls;
mod trace;
