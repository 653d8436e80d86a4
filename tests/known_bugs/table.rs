//! The tables in `docs/known-bugs/known-bugs-tables.md`, written by the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::rows::{CHAPTERS, Row, Status};
use crate::search::{Kill, Mutant};

const FILE: &str = "docs/known-bugs/known-bugs-tables.md";
/// By row and mutant: the setup, and the shortest script that breaks the promise.
const SCRIPTS: &str = "tests/known_bugs/shortest-scripts.txt";
/// The table is between these two.
const OPEN: &str = "<!-- known-bugs -->\n";
const CLOSE: &str = "<!-- /known-bugs -->\n";

/// The number of rows with each status.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) rows: usize,
    /// By a mutant, with this crate's code as control.
    pub(crate) refuted: usize,
    /// By a mutant that is not the published fault itself, or that no code of this crate is the control of.
    pub(crate) explained: usize,
    pub(crate) cannot_be_written: usize,
    pub(crate) out_of_scope: usize,
    pub(crate) missing: usize,
}

/// The kills by row.
pub(crate) type Found<'a> = BTreeMap<&'static str, Vec<(&'a Mutant, Kill)>>;

/// The table, and its totals.
pub(crate) fn write(found: &Found<'_>) -> (String, Totals) {
    let mut totals = Totals::default();
    let mut text = String::new();
    for (chapter, rows) in CHAPTERS {
        let _ = write!(text, "\n### {chapter}\n\n| | project | fault | refuted by |\n|---|---|---|---|\n");
        for row in *rows {
            let status = status(row, found, &mut totals);
            let _ = writeln!(text, "|{}|{}|{}|{status}|", row.id, row.project, row.fault);
        }
    }
    let _ = write!(text, "\n{totals}\n\n");
    (text, totals)
}

fn status(row: &Row, found: &Found<'_>, totals: &mut Totals) -> String {
    totals.rows += 1;
    match (found.get(row.id), row.status) {
        (Some(kills), None) => {
            let explained = kills.iter().all(|(mutant, _)| mutant.explained);
            *if explained { &mut totals.explained } else { &mut totals.refuted } += 1;
            let kills = kills.iter().map(|(mutant, kill)| format!("{} `{}`", kill.promise, mutant.name));
            let kills = kills.collect::<Vec<_>>().join("; ");
            if explained { format!("explained: {kills}") } else { kills }
        }
        (None, Some(Status::CannotBeWritten(reason, shown_by))) => {
            totals.cannot_be_written += 1;
            let shown = shown_by.map(|file| format!(" (`{file}.rs`)")).unwrap_or_default();
            format!("cannot be written: {reason}{shown}")
        }
        (None, Some(Status::OutOfScope(reason))) => {
            totals.out_of_scope += 1;
            format!("out of scope: {reason}")
        }
        _ => {
            totals.missing += 1;
            "**missing**".into()
        }
    }
}

/// The shortest scripts, in the order of the table.
pub(crate) fn scripts(found: &Found<'_>) -> String {
    let rows = CHAPTERS.iter().flat_map(|(_, rows)| *rows);
    let kills = rows.flat_map(|row| found.get(row.id).into_iter().flatten().map(move |kill| (row, kill)));
    kills.map(|(row, (mutant, kill))| format!("{} {}: {}\n", row.id, mutant.name, kill.script)).collect()
}

/// Compares the files of the table and the scripts with what the test has found, or writes them.
///
/// # Errors
///
/// The file that is not current, and how to update it.
pub(crate) fn keep_current(table: &str, scripts: &str) -> Result<(), String> {
    let update = std::env::var_os("UPDATE_KNOWN_BUGS").is_some();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{FILE}: {error}"))?;
    let (before, rest) = text.split_once(OPEN).ok_or_else(|| format!("{FILE} has no {OPEN}"))?;
    let (now, after) = rest.split_once(CLOSE).ok_or_else(|| format!("{FILE} has no {CLOSE}"))?;
    if update {
        let text = format!("{before}{OPEN}{table}{CLOSE}{after}");
        let written = std::fs::write(&path, text).and_then(|()| std::fs::write(root.join(SCRIPTS), scripts));
        return written.map_err(|error| error.to_string());
    }
    let stale =
        |file| Err(format!("{file} is not current: run with UPDATE_KNOWN_BUGS=1 and read the difference"));
    if now != table {
        return stale(FILE);
    }
    match std::fs::read_to_string(root.join(SCRIPTS)) {
        Ok(text) if text == scripts => Ok(()),
        _ => stale(SCRIPTS),
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, refuted, explained, cannot_be_written, out_of_scope, missing } = self;
        write!(
            f,
            "{rows} rows: {refuted} refuted on this crate's code, {explained} explained, {cannot_be_written} cannot be \
             written, {out_of_scope} out of scope, {missing} missing"
        )
    }
}
