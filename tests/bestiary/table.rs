//! The table: what the test run has found, as `docs/bestiary.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::hunt::{Kill, Mutant};
use crate::rows::{CHAPTERS, Place, Row};

const HEAD: &str = "\
# The bestiary

Faults of accept loops, limits and epoll wrappers that were published of real servers and libraries, told in our
words. Each has its place here:

* **refuted**: a mutant with that logic is run on the simulated kernel, and breaks a promise (P1 to P14, or a
  property of its own). What stands behind its name is what was built, and the shortest script that shows it:
  each act, and the point of the run where it happens. The same loop or gate without the fault, and the acceptors
  and the gate of this crate, pass the same scripts.
* **cannot be written**: a type or an owner forbids it; where the compiler can show that, a file of
  `tests/bestiary/ui` does.
* **out of scope**: why.

The last chapter was published by nobody: it is what the rules of [kernel.md][kernel] make of exclusive
registrations, and its mutants are the ways to get them wrong.

This file is written by `UPDATE_BESTIARY=1 cargo test --features sim --test bestiary`, and the test fails where it
is not current. The mutants stand in `tests/bestiary`.

[kernel]: kernel.md
";

/// How many rows have which place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) rows: usize,
    pub(crate) refuted: usize,
    pub(crate) cannot_be_written: usize,
    pub(crate) out_of_scope: usize,
    pub(crate) unplaced: usize,
}

/// The kills by row.
pub(crate) type Found<'a> = BTreeMap<&'static str, Vec<(&'a Mutant, Kill)>>;

/// The whole file, and its sums.
pub(crate) fn write(found: &Found<'_>) -> (String, Sums) {
    let mut sums = Sums::default();
    let mut text = String::from(HEAD);
    for (chapter, rows) in CHAPTERS {
        let _ = write!(text, "\n## {chapter}\n\n| | whose | the fault | its place |\n|---|---|---|---|\n");
        for row in *rows {
            let place = place(row, found, &mut sums);
            let _ = writeln!(text, "| {} | {} | {} | {place} |", row.id, row.whose, row.fault);
        }
    }
    let _ = write!(text, "\n{sums}\n");
    (text, sums)
}

fn place(row: &Row, found: &Found<'_>, sums: &mut Sums) -> String {
    sums.rows += 1;
    match (found.get(row.id), row.place) {
        (Some(kills), None) => {
            sums.refuted += 1;
            kills.iter().map(|(mutant, kill)| tell(mutant, kill)).collect::<Vec<_>>().join("; ")
        }
        (None, Some(Place::CannotBeWritten(why, shown_by))) => {
            sums.cannot_be_written += 1;
            let shown = shown_by.map(|file| format!(" (`{file}.rs`)")).unwrap_or_default();
            format!("cannot be written: {why}{shown}")
        }
        (None, Some(Place::OutOfScope(why))) => {
            sums.out_of_scope += 1;
            format!("out of scope: {why}")
        }
        _ => {
            sums.unplaced += 1;
            "**unplaced**".into()
        }
    }
}

fn tell(mutant: &Mutant, kill: &Kill) -> String {
    format!("refuted, {}: `{}`: {}", kill.promise, mutant.name, kill.script)
}

/// Compares the file with what it should be, or writes it.
///
/// # Errors
///
/// What to do if it is not current.
pub(crate) fn keep_current(text: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bestiary.md");
    if std::env::var_os("UPDATE_BESTIARY").is_some() {
        return std::fs::write(&path, text).map_err(|error| error.to_string());
    }
    match std::fs::read_to_string(&path) {
        Ok(there) if there == text => Ok(()),
        _ => Err("docs/bestiary.md is not current: set UPDATE_BESTIARY=1 and look at the difference".into()),
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, refuted, cannot_be_written, out_of_scope, unplaced } = self;
        write!(
            f,
            "bestiary: {rows} rows, {refuted} refuted, {cannot_be_written} cannot be written, \
             {out_of_scope} out of scope, {unplaced} unplaced"
        )
    }
}
