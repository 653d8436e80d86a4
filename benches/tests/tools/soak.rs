//! The tool that runs an acceptor under load and faults. Without its scenarios attack and overload, which measure time.

use std::process::{Command, Output};

use serde_json::Value;

fn soak(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_soak")).args(arguments).output().expect("the tool runs")
}

/// Runs these for as short as possible. Returns the row of each, and the one of all.
fn rows(scenarios: &[&str]) -> Vec<Value> {
    let only = scenarios.iter().flat_map(|name| ["--only", name]);
    let output = soak(&["--json", "--seconds", "1"].into_iter().chain(only).collect::<Vec<_>>());
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}\n{text}", output.status);
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(rows.len(), scenarios.len() + 1, "{text}");
    rows
}

#[test]
fn counts_balance_under_every_fault() {
    let faults = [
        "emfile",
        "reserve",
        "signals",
        "resets",
        "quitters",
        "paused",
        "shutdown",
        "scaling",
        "destroyed",
        "clock",
        "children",
        "panics",
    ];
    for row in rows(&faults) {
        if let Some(why) = row["skipped"].as_str() {
            eprintln!("SKIPPED: soak, {}: {why}", row["scenario"]);
            continue;
        }
        assert_eq!(row["balanced"], true, "{row}");
        assert!(row["connected"].as_u64() > Some(0), "{row}");
        for nothing in ["unanswered", "stranded", "leaked_descriptors"] {
            assert_eq!(row[nothing], 0, "{row}");
        }
        assert!(row["peak_in_service"].as_u64() <= row["limit"].as_u64(), "{row}");
        assert!(row["delivered"].is_u64() && row["refused"].is_u64(), "{row}");
    }
}

#[test]
fn load_reaches_the_descriptor_limit() {
    let rows = rows(&["load"]);
    assert_eq!(rows[0]["peak_in_service"], rows[0]["limit"], "{}", rows[0]);
    assert_eq!(rows[0]["connected"], rows[0]["delivered"], "{}", rows[0]);
}

#[test]
fn skipped_scenario_is_reported() {
    let output = soak(&["--only", "enfile"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("SKIPPED enfile: "), "{output:?}");
}

#[test]
fn help_is_printed_and_bad_options_fail() {
    let help = soak(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: soak"));
    for nonsense in [
        &["--nonsense"][..],
        &["--only", "nothing"],
        &["--seconds", "0"],
        &["--seconds", "soon"],
        &["--trigger", "happy"],
    ] {
        let output = soak(nonsense);
        assert_eq!(output.status.code(), Some(2), "{nonsense:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("soak: "), "{output:?}");
    }
}
