//! The body is in `tests/promises/corpus/bodies.rs`; `tests/promises/corpus` runs it on the committed corpus.
#![no_main]

#[allow(dead_code, reason = "each target uses one body")]
#[path = "../../tests/promises/corpus/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::peer(bytes));
