//! The bestiary: accept-loop faults of real servers and libraries, each refuted.
//!
//! A fault is made executable as a mutant: a loop, a gate or a wrapper that is right but for one piece. It
//! has to break the promise that its row names, by the shortest script there is; and everything that is right
//! has to pass the same scripts, or the kill means nothing.
#![cfg(feature = "sim")]

mod world;
mod parting;
mod desk;
mod hall;
mod hunt;
mod loops;
mod gates;
mod wrappers;
mod rows;
mod table;

use std::collections::BTreeSet;
use std::io::Write as _;

use epoll_acceptor::Gate;
use epoll_acceptor::sim::{Action, Real, Script, Setup, explore, run};

use desk::{Hands, Right};
use hunt::{Controls, Mutant, edge, shed};
use loops::states::Outage;
use rows::{CHAPTERS, Place};

fn mutants() -> Vec<Mutant> {
    let all = [
        loops::strand::mutants,
        loops::parting::mutants,
        loops::races::mutants,
        loops::spin::mutants,
        loops::places::mutants,
        loops::states::mutants,
        gates::mutants,
        wrappers::mutants,
    ];
    all.into_iter().flat_map(|mutants| mutants()).collect()
}

#[test]
fn every_published_fault_has_its_place() {
    let mutants = mutants();
    let mut controls = Controls::default();
    let mut found = table::Found::new();
    let mut wrong = Vec::new();
    for mutant in &mutants {
        match mutant.refute(&mut controls) {
            Ok(kill) => {
                mutant.rows.iter().for_each(|row| found.entry(row).or_default().push((mutant, kill.clone())));
            }
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let (text, sums) = table::write(&found);
    let executable: BTreeSet<_> = mutants.iter().map(|mutant| mutant.name).collect();
    say(&format!("{sums}\nbestiary: {} mutants, all killed", executable.len()));
    assert_eq!(sums.unplaced, 0, "{text}");
    assert!(executable.len() >= 80, "only {} mutants", executable.len());
    table::keep_current(&text).unwrap();
}

#[test]
fn no_row_is_missing_or_told_twice() {
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

/// Edge-triggered; over the limit it closes the new connection, and returns where it should go on.
#[test]
fn the_loop_of_the_outage_strands_its_clients_in_four_steps() {
    let case = shed(1, edge(0));
    let (script, violation) =
        explore::<Gate>(&case, &Hands(|| Box::new(Outage)), &[Action::Connect(0)], 4).unwrap_err();
    assert_eq!(violation.promise, "P1", "{violation}");
    assert!(script.acts().len() <= 4, "{script}");
    for right in [case.clone(), Setup { proof: None, ..case }] {
        run::<Gate>(&right, &script, &Real).unwrap();
        run::<Gate>(&right, &script, &Hands(|| Box::new(Right))).map(drop).unwrap_or_else(|violation| {
            assert!(right.proof.is_none(), "{violation}");
        });
    }
    say(&format!("the loop of the outage: {violation}, after\n{script}"));
}

/// It is the return that does it: by level, or going on, the same server is well.
#[test]
fn the_outage_has_two_cures() {
    let script = (0..4).fold(Script::new(), |script, _| script.at(0, Action::Connect(0)));
    let by_level = Setup { trigger: epoll_acceptor::Trigger::Level, ..shed(1, edge(0)) };
    run::<Gate>(&by_level, &script, &Hands(|| Box::new(Outage))).unwrap();
    run::<Gate>(&shed(1, edge(0)), &script, &Hands(|| Box::new(Right))).unwrap();
}

/// The messages are those of the stable compiler; with another one, set `TRYBUILD=overwrite` and look.
#[test]
fn what_cannot_be_written_does_not_compile() {
    let tests = trybuild::TestCases::new();
    for (_, rows) in CHAPTERS {
        for row in *rows {
            if let Some(Place::CannotBeWritten(_, Some(file))) = row.place {
                tests.compile_fail(format!("tests/bestiary/ui/{file}.rs"));
            }
        }
    }
}

/// Past the capture of the test harness, which would swallow it where the test succeeds.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
