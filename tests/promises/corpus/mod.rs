//! Runs the fuzz targets on their committed corpora, with a stable toolchain.
//!
//! `cargo +nightly fuzz run script` (or `masks`, or `peer`) searches for more inputs. The packaged crate has no corpora.

mod bodies;

use std::fs;
use std::path::Path;

use crate::say;

#[test]
fn corpus_scripts_keep_the_promises() {
    replay("script", bodies::script);
}

#[test]
fn corpus_masks_round_trip() {
    replay("masks", bodies::masks);
}

#[test]
fn corpus_peers_decode() {
    replay("peer", bodies::peer);
}

/// Runs `body` on every file of a corpus, and on the empty input.
fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    body(&[]);
    let Ok(files) = fs::read_dir(&corpus) else {
        return say(&format!(
            "SKIPPED: no corpus of `{target}`; the repository has it, the package does not"
        ));
    };
    let mut count = 0_u32;
    for file in files {
        let file = file.expect("a corpus can be read").path();
        let bytes = fs::read(&file).expect("a corpus can be read");
        let replayed = std::panic::catch_unwind(|| body(&bytes));
        assert!(replayed.is_ok(), "{} fails", file.display());
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
    say(&format!("corpus of {target}: {count} inputs"));
}
