//! The example that strands connections with a faulty loop.

use std::process::Command;

use serde_json::Value;

use crate::binaries::example;

fn row<'a>(rows: &'a [Value], acceptor: &str) -> &'a Value {
    rows.iter().find(|row| row["acceptor"] == acceptor).expect("a line per acceptor")
}

#[test]
fn faulty_loop_strands_and_this_crate_does_not() {
    let output = Command::new(example("close_wait")).arg("--json").output().expect("the example runs");
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    assert!(output.status.success(), "{}\n{text}", output.status);
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row["newcomers_asked"] == 5 && row["cpu_percent_while_full"].is_f64()));

    let faulty = row(&rows, "faulty edge loop");
    assert_eq!(faulty["verdict"], "stranded");
    assert_eq!(faulty["queued_while_full"], 199, "it accepted one of 200");
    assert_eq!(faulty["newcomers_answered"], 0);
    assert!(faulty["close_wait_unowned"].as_u64() > Some(90), "about half of the clients quit: {faulty}");

    let level = row(&rows, "faulty loop, level-triggered");
    assert_eq!((&level["newcomers_answered"], &level["close_wait_unowned"]), (&5.into(), &0.into()));

    for (acceptor, queued) in [
        ("EdgeTriggered pause", 200),
        ("EdgeTriggered shed", 0),
        ("LevelTriggered pause", 200),
        ("LevelTriggered shed", 0),
    ] {
        let row = row(&rows, acceptor);
        assert_eq!(row["verdict"], "ok", "{row}");
        assert_eq!(row["queued_while_full"], queued, "{row}");
        assert_eq!(row["newcomers_answered"], 5, "{row}");
        assert_eq!(row["close_wait_unowned"], 0, "{row}");
    }
}

#[test]
fn table_lists_every_acceptor_and_fits_80_columns() {
    let output = Command::new(example("close_wait")).output().expect("the example runs");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).expect("it prints text");
    for acceptor in [
        "faulty loop, edge-triggered",
        "faulty loop, level-triggered",
        "EdgeTriggered, Wait",
        "LevelTriggered, Shed",
    ] {
        assert!(text.lines().any(|line| line.starts_with(acceptor)), "no row for {acceptor}:\n{text}");
    }
    assert!(text.contains("STRANDED"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "a line is too long:\n{text}");
}

#[test]
fn help_is_printed_and_bad_options_fail() {
    let run =
        |argument| Command::new(example("close_wait")).arg(argument).output().expect("the example runs");
    let help = run("--help");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: close_wait"));
    assert!(!run("--nonsense").status.success());
}
