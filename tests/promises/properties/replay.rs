//! Random scripts on the simulated kernel and on the real one.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::properties::random::case_and_script;
use crate::{real_stage, say, thorough};

#[test]
fn the_real_kernel_plays_the_same_scripts() {
    let wanted = if thorough() { 8000 } else { 800 };
    let mut runner = TestRunner::deterministic();
    let (mut played, mut delivered) = (0, 0);
    while played < wanted {
        let (setup, script) = case_and_script().new_tree(&mut runner).expect("a script").current();
        let Some(setup) = real_stage::playable(&setup) else { continue };
        delivered += real_stage::play_on_both(&setup, &script).delivered;
        played += 1;
    }
    say(&format!("replayed on the real kernel: {played} scripts, {delivered} connections delivered"));
}
