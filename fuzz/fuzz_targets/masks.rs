//! See `tests/corpus/bodies.rs`, which replays what this finds.
#![no_main]

#[allow(dead_code, reason = "each target runs one of them")]
#[path = "../../tests/corpus/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::masks(bytes));
