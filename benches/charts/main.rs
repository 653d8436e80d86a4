//! Turns the JSON output of the benches into the charts and tables of the documentation.
//!
//! ```text
//! cargo bench -p benches --bench pairs -- --json > docs/benchmarks/pairs.jsonl
//! cargo run --release -p benches --bin charts -- docs/benchmarks/*.jsonl
//! ```
//!
//! Every object names its bench. To add a bench, add a module like `pairs` and a line in [`BENCHES`].

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
Draws charts and fills in tables from the JSON output of the benches.

Usage: charts [options] FILE...

      --charts DIR     write the charts to this directory [docs/benchmarks]
      --tables FILE    fill in the tables of this document, between the markers
                       <!-- NAME --> and <!-- /NAME -->; may be repeated
                       [docs/benchmarks.md, docs/benchmarks/benchmark-tables.md]
  -h, --help           print this help
";

/// The charts and tables of one bench.
pub(crate) struct Pages {
    /// By file name.
    charts: Vec<(&'static str, Bars)>,
    /// By marker, in Markdown.
    tables: Vec<(&'static str, String)>,
}

type Factory = fn(&[Row]) -> Pages;

/// Every bench that has charts or tables.
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
    let mut documents = Vec::new();
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("charts") => charts = arguments.value()?.into(),
            Long("tables") => documents.push(PathBuf::from(arguments.value()?)),
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
    if documents.is_empty() {
        documents = ["docs/benchmarks.md", "docs/benchmarks/benchmark-tables.md"].map(PathBuf::from).into();
    }
    for (bench, rows) in &rows {
        let Some((_, pages)) = BENCHES.iter().find(|(name, _)| name == bench) else {
            eprintln!("SKIPPED: unknown bench {bench:?}");
            continue;
        };
        publish(&pages(rows), &charts, &documents)?;
    }
    Ok(())
}

fn publish(pages: &Pages, charts: &Path, documents: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(charts)?;
    for (name, bars) in &pages.charts {
        let path = charts.join(name);
        bars.draw(&path)?;
        println!("{}", path.display());
    }
    let mut texts: Vec<_> = documents.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
    for (marker, table) in &pages.tables {
        let text = texts.iter_mut().find(|text| tables::has(text, marker));
        let text = text.ok_or_else(|| {
            format!("no document has the marker <!-- {marker} -->: add it where the table belongs")
        })?;
        *text = tables::fill_in(text, marker, table)?;
    }
    for (document, text) in documents.iter().zip(texts) {
        fs::write(document, text)?;
        println!("{}", document.display());
    }
    Ok(())
}
