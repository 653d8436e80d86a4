//! The back-off under a monotonic clock that is 30 years ahead.

use std::env;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{End, Harness, Outcome, Scenario, ScenarioResult};

pub(crate) const SCENARIO: Scenario =
    Scenario { name: "clock", about: "EMFILE under a clock 30 years ahead", share: 1.0, least: 0.3, run };

const THIRTY_YEARS: &str = "946080000";

/// Steps of the wall clock are not tested: the whole machine uses it, and this crate does not read it.
fn run(harness: &mut Harness) -> ScenarioResult {
    if !nix::unistd::geteuid().is_root() {
        return Ok(End::Skipped("a time namespace needs CAP_SYS_ADMIN: run it as root".to_owned()));
    }
    let output = Command::new("unshare")
        .args(["--time", "--fork", "--monotonic", THIRTY_YEARS, "--boottime", THIRTY_YEARS])
        .arg(env::current_exe()?)
        .args([
            "--json",
            "--only",
            "emfile",
            "--trigger",
            &harness.trigger.to_string(),
            "--seconds",
            &format!("{:.1}", harness.seconds()),
        ])
        .stderr(Stdio::piped())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Ok(End::Skipped(format!("needs `unshare` of util-linux: {error}"))),
    };
    let text = String::from_utf8(output.stdout)?;
    let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(row) = rows.into_iter().find(|row| row["scenario"] == "emfile") else {
        let why = String::from_utf8_lossy(&output.stderr);
        return Ok(End::Skipped(format!("no time namespace: {}", why.lines().last().unwrap_or("unknown"))));
    };
    let number = |key: &str| row[key].as_u64().unwrap_or(0);
    let mut outcome = Outcome {
        connected: number("connected"),
        delivered: number("delivered"),
        refused: number("refused"),
        unanswered: number("unanswered"),
        stranded: number("stranded"),
        leaked_descriptors: number("leaked_descriptors"),
        peak_in_service: number("peak_in_service"),
        limit: number("limit"),
        ..Outcome::default()
    };
    outcome.check(
        row["balanced"] == true,
        &format!("the scenario passes in the time namespace: {}", row["broken"]),
    );
    outcome.add("seconds_ahead", THIRTY_YEARS);
    outcome.add("exhausted", number("exhausted"));
    Ok(End::Done(Box::new(outcome)))
}
