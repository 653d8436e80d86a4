//! The tool that replaces its server under load.

use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_handover")).args(arguments).output().expect("the tool runs")
}

fn outcome(way: &str, handovers: u64) -> (bool, Value) {
    let handovers = handovers.to_string();
    let output =
        run(&["--json", "--connections", "3000", "--clients", "16", "--way", way, "--handovers", &handovers]);
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let outcome = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}\n{text}{error}", output.status));
    (output.status.success(), outcome)
}

#[test]
fn no_client_is_lost_by_any_way() {
    for (way, handovers) in [("inherit", 5), ("rights", 5), ("both", 10)] {
        let (success, outcome) = outcome(way, handovers);
        assert!(success, "{outcome}");
        assert!(outcome["connections"].as_u64() >= Some(3000), "{outcome}");
        assert_eq!(outcome["answered"], outcome["connections"], "{outcome}");
        for lost in ["failed_connects", "resets", "unanswered", "left_by_servers"] {
            assert_eq!(outcome[lost], 0, "{outcome}");
        }
        assert_eq!(outcome["processes"], handovers + 1, "every server has ended: {outcome}");
    }
}

/// Control: without a handover clients are lost, and counted.
#[test]
fn close_and_bind_loses_clients() {
    let (success, outcome) = outcome("rebind", 10);
    let lost =
        ["failed_connects", "resets", "unanswered"].map(|lost| outcome[lost].as_u64().expect("a number"));
    assert!(!success && lost.iter().sum::<u64>() > 0, "{outcome}");
}

#[test]
fn table_is_printed_and_bad_options_fail() {
    let table = run(&["--connections", "100", "--handovers", "1"]);
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(table.status.success() && text.contains("handovers        1, by 2 processes"), "{text}");
    assert!(String::from_utf8_lossy(&run(&["--help"]).stdout).contains("Usage: handover"));
    for nonsense in [&["--nonsense"][..], &["--way", "magic"], &["--connections", "0"], &["server"]] {
        assert_eq!(run(nonsense).status.code(), Some(2), "{nonsense:?}");
    }
}
