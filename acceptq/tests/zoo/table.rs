//! The table of verdicts in docs/acceptq/acceptq-zoo.md.

use std::fmt::Write as _;
use std::path::Path;

use crate::cell::{Cell, Outcome, Result};

pub(crate) fn line(cell: &Cell, result: &Result) -> String {
    let outcome = format!("{:?}", result.outcome).to_lowercase();
    format!("{outcome:10} {:40} {:14} {:24} {}", cell.name(), result.verdict, result.cause, result.note)
}

/// Writes the table.
pub(crate) fn write(results: &[(&Cell, Result)]) {
    let count = |outcome: Outcome| results.iter().filter(|(_, result)| result.outcome == outcome).count();
    let judged = results.len() - count(Outcome::Skipped);
    let mut text = String::from(
        "# acceptq on real servers\n\n\
         The verdict of `acceptq doctor` on servers of other projects, in states that an operator meets: one \
         observation each.\n\
         `ACCEPTQ_ZOO=1 UPDATE_ZOO=1 cargo test -p acceptq --test zoo` writes this page; the servers come from \
         Debian's packages.\n\
         \"Right\" verdicts are listed for each state in `acceptq/tests/zoo/servers.rs`. A verdict is misleading \
         if it leads to\n\
         the cause by a detour, or is `undetermined`. The rules were improved on these states, so on other servers \
         expect less.\n\n",
    );
    let _ = writeln!(
        text,
        "{judged} states: {} right, {} misleading, {} wrong.\n",
        count(Outcome::Right),
        count(Outcome::Misleading),
        count(Outcome::Wrong)
    );
    text.push_str("|server|state|verdict|cause||\n|---|---|---|---|---|\n");
    for (cell, result) in results.iter().filter(|(_, result)| result.outcome != Outcome::Skipped) {
        let outcome = match result.outcome {
            Outcome::Right => "",
            Outcome::Misleading => "misleading",
            _ => "**wrong**",
        };
        // Brackets would be a link.
        let (server, state) = (cell.server.replace("[::1]", "`::1`"), cell.state);
        let _ = writeln!(text, "|{server}|{state}|{}|{}|{outcome}|", result.verdict, result.cause);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/acceptq/acceptq-zoo.md");
    std::fs::write(path, text).expect("the docs directory");
}
