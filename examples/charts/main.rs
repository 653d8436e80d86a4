//! Turns what the benches print with `--json` into the charts and tables of the documentation.
//!
//! ```text
//! cargo bench --bench pairs -- --json > docs/benchmarks/pairs.jsonl
//! cargo run --release --example charts -- docs/benchmarks/*.jsonl
//! ```
//!
//! Every object names its bench. A new bench needs a module like `pairs` and a line in [`BENCHES`].

mod bars;
mod close_wait;
mod growth;
mod instructions;
mod pairs;
mod rows;
mod soak;
mod tables;
mod workers;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;

use crate::bars::Bars;
use crate::rows::Row;

const HELP: &str = "\
Draws charts and fills in tables from the benches' JSON lines.

Usage: charts [options] FILE...

      --charts DIR     where the charts go [docs/benchmarks]
      --tables FILE    the document whose tables are filled in, between the
                       markers <!-- NAME --> and <!-- /NAME --> [docs/benchmarks.md]
  -h, --help           print this help
";

/// What is made of the rows of one bench.
pub(crate) struct Pages {
    /// By file name.
    charts: Vec<(&'static str, Bars)>,
    /// By marker, in Markdown.
    tables: Vec<(&'static str, String)>,
}

type Factory = fn(&[Row]) -> Pages;

/// Every bench that something is made of.
const BENCHES: [(&str, Factory); 6] = [
    ("close_wait", close_wait::pages),
    ("pairs", pairs::pages),
    ("growth", growth::pages),
    ("workers", workers::pages),
    ("instructions", instructions::pages),
    ("soak", soak::pages),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut charts = PathBuf::from("docs/benchmarks");
    let mut document = PathBuf::from("docs/benchmarks.md");
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("charts") => charts = arguments.value()?.into(),
            Long("tables") => document = arguments.value()?.into(),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            Value(file) => {
                for row in rows::read(Path::new(&file))? {
                    rows.entry(row.bench.clone()).or_default().push(row);
                }
            }
            other => return Err(other.unexpected().into()),
        }
    }
    for (bench, rows) in &rows {
        let Some((_, pages)) = BENCHES.iter().find(|(name, _)| name == bench) else {
            eprintln!("SKIPPED: nothing is known of a bench {bench:?}");
            continue;
        };
        publish(&pages(rows), &charts, &document)?;
    }
    Ok(())
}

fn publish(pages: &Pages, charts: &Path, document: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(charts)?;
    for (name, bars) in &pages.charts {
        let path = charts.join(name);
        bars.draw(&path)?;
        println!("{}", path.display());
    }
    let mut text = fs::read_to_string(document)?;
    for (marker, table) in &pages.tables {
        text = tables::fill_in(&text, marker, table)?;
    }
    fs::write(document, text)?;
    println!("{}", document.display());
    Ok(())
}
