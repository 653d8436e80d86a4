//! Runs the tool and reads what it says.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// More than any of these tests takes, even on a machine that is busy with others.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Says what this machine cannot do, past the harness, which keeps what a passing test prints.
macro_rules! skip {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED: {}", format_args!($($words)*));
    }};
}
pub(crate) use skip;

pub(crate) fn acceptq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_acceptq")).args(arguments).output().expect("the tool runs")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the tool speaks UTF-8")
}

/// What the doctor says of a target, and its exit status.
pub(crate) fn examine(target: &str) -> (Value, i32) {
    let output = acceptq(&["doctor", target, "--json", "--for", "0.5"]);
    diagnosis(&output)
}

pub(crate) fn diagnosis(output: &Output) -> (Value, i32) {
    let text = stdout(output);
    let said = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"));
    (said, output.status.code().expect("the tool exits"))
}

/// Asks the doctor until it gives this verdict, which it must do within bounds.
pub(crate) fn await_verdict(target: &str, verdict: &str) -> Value {
    await_verdict_of(verdict, || examine(target))
}

pub(crate) fn await_verdict_of(verdict: &str, mut examine: impl FnMut() -> (Value, i32)) -> Value {
    let begun = Instant::now();
    loop {
        let (said, status) = examine();
        assert_eq!(said["exit_status"], status, "the exit status follows the verdict: {said:#}");
        if said["verdict"] == verdict {
            return said;
        }
        assert!(begun.elapsed() < LONG, "not {verdict}, but {said:#}");
    }
}

/// How many wait at a target, as the tool lists it.
pub(crate) fn queued(target: &str) -> u64 {
    let said: Value = serde_json::from_str(&stdout(&acceptq(&["list", target, "--json"]))).expect("JSON");
    let rows = said["listeners"].as_array().expect("rows");
    rows.iter().map(|row| row["queued"].as_u64().expect("a number")).sum()
}

pub(crate) fn wait_until(wording: &str, mut fact: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < LONG, "this did not come true: {wording}");
        thread::sleep(Duration::from_millis(5));
    }
}
