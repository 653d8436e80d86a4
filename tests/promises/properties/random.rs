//! Random setups and scripts, shrunk to what a person can read.

use std::sync::atomic::{AtomicU64, Ordering};

use epoll_acceptor::Gate;
use epoll_acceptor::sim::{Action, Real, Script, Setup, run, shrink};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::properties::setups;
use crate::{say, thorough};

#[test]
fn every_promise_holds_after_random_acts() {
    let scripts = AtomicU64::new(0);
    let config = Config {
        cases: if thorough() { 5_000_000 } else { 150_000 },
        failure_persistence: None,
        max_shrink_iters: 10_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&case_and_script(), |(setup, script)| {
        scripts.fetch_add(1, Ordering::Relaxed);
        run::<Gate>(&setup, &script, &Real)
            .map(drop)
            .map_err(|violation| TestCaseError::fail(violation.to_string()))
    });
    if let Err(TestError::Fail(reason, (setup, script))) = outcome {
        let script = shrink::<Gate>(&setup, &Real, script);
        panic!("{reason}\nin {setup:?}\nafter\n{script}");
    }
    say(&format!("random: {} scripts of up to 24 acts", scripts.load(Ordering::Relaxed)));
}

pub(crate) fn case_and_script() -> impl Strategy<Value = (Setup, Script)> {
    let acts = prop::collection::vec((0..40_u32, any::<prop::sample::Index>()), 0..24);
    // Half of them with a policy besides the gate.
    let extra = 0..2 * setups::EXTRAS_COUNT;
    ((0..setups::count()).prop_map(setups::nth), extra, acts).prop_map(|(setup, extra, acts)| {
        let setup = if extra < setups::EXTRAS_COUNT { setups::with_extra(&setup, extra) } else { setup };
        let all = Action::all(&setup);
        let script =
            acts.iter().fold(Script::new(), |script, (later, act)| script.after(*later, *act.get(&all)));
        (setup, script)
    })
}

#[test]
fn a_script_from_bytes_is_the_script_it_prints() {
    let setup = setups::nth(0);
    let script = Script::from_bytes(&[3, 0, 1, 7], &setup);
    assert_eq!(script.acts().len(), 2);
    assert_eq!(script.to_string().matches(".at(").count(), 2);
    assert_eq!(script.acts()[0], (3, Action::all(&setup)[0]));
}
