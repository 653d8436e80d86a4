//! The inputs that the fuzzer found worth keeping, on the stable toolchain.
//!
//! `cargo +nightly fuzz run script` (or `masks`, or `peer`) looks for more. The corpus is not part of the packaged
//! crate.
#![cfg(feature = "sim")]

mod bodies;

use std::fs;
use std::io::Write;
use std::path::Path;

#[test]
fn every_script_of_the_corpus_keeps_the_promises() {
    replay("script", bodies::script);
}

#[test]
fn every_mask_of_the_corpus_comes_back() {
    replay("masks", bodies::masks);
}

#[test]
fn every_peer_of_the_corpus_decodes() {
    replay("peer", bodies::peer);
}

/// Runs `body` on every file of a corpus, and on nothing at all.
fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    body(&[]);
    let Ok(files) = fs::read_dir(&corpus) else {
        return say(&format!(
            "SKIPPED: no corpus of `{target}`; it is in the repository, not in the package"
        ));
    };
    let mut count = 0_u32;
    for file in files {
        let file = file.expect("a corpus can be read").path();
        let bytes = fs::read(&file).expect("a corpus can be read");
        let replayed = std::panic::catch_unwind(|| body(&bytes));
        assert!(replayed.is_ok(), "{} breaks it", file.display());
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
    say(&format!("corpus of {target}: {count} inputs"));
}

/// Past the harness's capture.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
