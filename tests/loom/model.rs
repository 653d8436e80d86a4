//! Explores a scenario, and reports what was covered.

use std::env::current_exe;
use std::panic::set_hook;
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use loom::model::Builder;

/// Runs `scenario` in every interleaving within the bounds of the environment, and prints their number.
pub(crate) fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    explore_within(name, Builder::new(), scenario);
}

/// As [`explore`], for three threads that meet often: a bound on preemptions is lowered to two.
pub(crate) fn explore_wide(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.map(|bound| bound.min(2));
    explore_within(name, builder, scenario);
}

fn explore_within(name: &str, builder: Builder, scenario: impl Fn() + Send + Sync + 'static) {
    let (begun, time) = (Instant::now(), builder.max_duration);
    let bound = builder.preemption_bound.map_or("any number of".into(), |bound| bound.to_string());
    let runs = count(builder, scenario);
    let spent = begun.elapsed();
    // loom ends without a message when its time is over.
    let cut =
        if time.is_some_and(|time| spent >= time) { ", NOT ALL: LOOM_MAX_DURATION is over" } else { "" };
    eprintln!("{name}: {runs} interleavings with {bound} preemptions in {spent:.2?}{cut}");
}

/// Requires that some interleaving breaks `scenario`, with a message that contains `how`.
///
/// loom cannot unwind threads that are deadlocked, so the search runs in a process of its own: this test again, which
/// ends with the first panic.
pub(crate) fn refute(test: &str, how: &str, scenario: impl Fn() + Send + Sync + 'static) {
    if std::env::var_os(CHILD).is_some() {
        set_hook(Box::new(|panic| {
            eprintln!("{FOUND}{panic}");
            exit(EXIT_FOUND);
        }));
        // Without a bound the search is depth-first, and may take very long to reach the interleavings with few
        // preemptions, which show each of these faults.
        let mut builder = Builder::new();
        builder.preemption_bound = Some(builder.preemption_bound.map_or(3, |bound| bound.min(3)));
        builder.max_duration = None;
        eprintln!("survived {} interleavings", count(builder, scenario));
        return;
    }
    let begun = Instant::now();
    let searched = Command::new(current_exe().expect("a test has a path"))
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a test can be run");
    let stderr = String::from_utf8_lossy(&searched.stderr);
    assert_eq!(searched.status.code(), Some(EXIT_FOUND), "{test}: not found: {stderr}");
    let found = stderr.split_once(FOUND).map_or("", |(_, found)| found);
    assert!(found.contains(how), "{test}: found for another reason than \"{how}\": {found}");
    eprintln!("{test}: found ({how}) in {:.2?}", begun.elapsed());
}

/// Set in the process that searches for a fault.
const CHILD: &str = "EPOLL_ACCEPTOR_LOOM_FAULT";
const FOUND: &str = "found: ";
const EXIT_FOUND: i32 = 42;

fn count(mut builder: Builder, scenario: impl Fn() + Send + Sync + 'static) -> u64 {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    // loom reads the clock once per this many interleavings.
    builder.checkpoint_interval = 500;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    runs.load(Ordering::Relaxed)
}
