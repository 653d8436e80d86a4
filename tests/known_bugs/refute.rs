//! Each fault is refuted, and the table of faults is complete.

use std::collections::BTreeSet;
use std::path::Path;

use epoll_acceptor::Gate;
use epoll_acceptor::sim::{Action, Real, Script, Setup, explore, run};

use crate::hand_loop::HandLoops;
use crate::loop_hooks::Reference;
use crate::loops::states::Outage;
use crate::rows::{CHAPTERS, Status};
use crate::search::{Controls, Mutant, edge, shed};
use crate::{eprint, gates, loops, table, wrappers};

fn mutants() -> Vec<Mutant> {
    let all = [
        loops::strand::mutants,
        loops::exclusive::mutants,
        loops::races::mutants,
        loops::spin::mutants,
        loops::permits::mutants,
        loops::states::mutants,
        gates::mutants,
        wrappers::mutants,
    ];
    all.into_iter().flat_map(|mutants| mutants()).collect()
}

/// With `KNOWN_BUG=S7` only the mutants of that row, whose scripts it prints.
#[test]
fn known_bugs_all_break_their_promise() {
    let only = std::env::var("KNOWN_BUG").ok();
    let mut mutants = mutants();
    mutants.retain(|mutant| only.as_deref().is_none_or(|row| mutant.rows.contains(&row)));
    let mut controls = Controls::default();
    let mut found = table::Found::new();
    let mut wrong = Vec::new();
    for mutant in &mutants {
        match mutant.refute(&mut controls) {
            Ok(kill) => {
                mutant.rows.iter().for_each(|row| found.entry(row).or_default().push((mutant, kill.clone())));
            }
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    if let Some(row) = only {
        assert!(!mutants.is_empty(), "no mutant shows {row:?}: the table says why");
        return eprint(&table::scripts(&found));
    }
    let (text, totals) = table::write(&found);
    let executable: BTreeSet<_> = mutants.iter().map(|mutant| mutant.name).collect();
    eprint(&format!(
        "known bugs: {totals}\nknown bugs: {} mutants, each breaks its promise",
        executable.len()
    ));
    assert_eq!(totals.missing, 0, "{text}");
    assert!(executable.len() >= 80, "only {} mutants", executable.len());
    table::keep_current(&text, &table::scripts(&found)).unwrap();
}

#[test]
fn rows_are_complete_and_unique() {
    let ids: Vec<_> =
        CHAPTERS.iter().flat_map(|(_, rows)| rows.iter().map(|row| row.id.to_owned())).collect();
    let chapters = [("S", 37), ("B", 15), ("L", 22), ("F", 22), ("M", 56), ("E", 7)];
    let all: Vec<_> = chapters
        .into_iter()
        .flat_map(|(chapter, last)| (1..=last).map(move |n| format!("{chapter}{n}")))
        .collect();
    assert_eq!(ids, all);
    let known = |row: &&str| ids.iter().any(|id| id == row);
    assert!(mutants().iter().all(|mutant| mutant.rows.iter().all(known)));
}

/// Edge-triggered; over the limit it closes the new connection, and returns instead of continuing.
#[test]
fn outage_loop_strands_a_client_in_four_steps() {
    let setup = shed(1, edge(0));
    let (script, violation) =
        explore::<Gate>(&setup, &HandLoops(|| Box::new(Outage)), &[Action::Connect(0)], 4).unwrap_err();
    assert_eq!(violation.promise, "P1", "{violation}");
    assert!(script.acts().len() <= 4, "{script}");
    for setup in [setup.clone(), Setup { empty_check: None, ..setup }] {
        run::<Gate>(&setup, &script, &Real).unwrap();
        let reference = HandLoops(|| Box::new(Reference));
        run::<Gate>(&setup, &script, &reference).map(drop).unwrap_or_else(|violation| {
            assert!(setup.empty_check.is_none(), "{violation}");
        });
    }
    eprint(&format!("the loop of the outage: {violation}, after\n{script}"));
}

/// The return is the cause: level-triggered, or with a loop that continues, the same server strands none.
#[test]
fn outage_has_two_fixes() {
    let script = (0..4).fold(Script::new(), |script, _| script.at(0, Action::Connect(0)));
    let by_level = Setup { trigger: epoll_acceptor::Trigger::Level, ..shed(1, edge(0)) };
    run::<Gate>(&by_level, &script, &HandLoops(|| Box::new(Outage))).unwrap();
    run::<Gate>(&shed(1, edge(0)), &script, &HandLoops(|| Box::new(Reference))).unwrap();
}

/// `tests/misuse` compiles them.
#[test]
fn unwritable_bugs_have_a_case() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse/cases");
    if !cases.exists() {
        return eprint("SKIPPED: the repository has tests/misuse, the package does not");
    }
    for row in CHAPTERS.iter().flat_map(|(_, rows)| *rows) {
        if let Some(Status::CannotBeWritten(_, Some(file))) = row.status {
            assert!(cases.join(file).with_extension("rs").exists(), "{file}");
        }
    }
}
