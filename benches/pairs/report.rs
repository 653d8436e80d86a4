//! The output: tables, or one JSON object per line.

use std::io::{self, Write};

use serde_json::json;

use crate::engines::stats::Median;
use crate::plans::REFERENCE;
use crate::verdict;
use crate::work::Pair;

/// The result of a pair.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) pair: Pair,
    pub(crate) ratio: Median,
    pub(crate) ns: f64,
    pub(crate) blocks: usize,
}

pub(crate) fn json(rows: &[Row], machine: &str, out: &mut impl Write) -> io::Result<()> {
    for row in rows {
        let Row { pair, ratio, ns, blocks } = row;
        let mut object = json!({
            "bench": "pairs",
            "engine": pair.engine,
            "burst": pair.work.burst,
            "ns_per_connection": rounded(*ns, 1.0),
            "ratio": rounded(ratio.value, 1e4),
            "low": rounded(ratio.low, 1e4),
            "high": rounded(ratio.high, 1e4),
            "blocks": blocks,
            "machine": machine,
        });
        if !pair.is_of_the_table() {
            object["against"] = pair.reference.into();
        }
        if let Some(bound) = verdict::bound(pair) {
            object["bound"] = bound.into();
        }
        if let Some(sequence) = pair.work.sequence {
            object["sequence"] = sequence.into();
        }
        writeln!(out, "{object}")?;
    }
    Ok(())
}

pub(crate) fn tables(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nAgainst {REFERENCE} (1.00): ns per connection, ratio, 95 % interval\n")?;
    for row in rows.iter().filter(|row| row.pair.is_of_the_table()) {
        let label = format!("{:<30} {:>5}", row.pair.engine, row.pair.work.burst);
        line(&label, row, out)?;
    }
    writeln!(out, "\nDirect comparisons\n")?;
    let direct = |row: &&Row| !row.pair.is_of_the_table() && row.pair.work.sequence.is_none();
    for row in rows.iter().filter(direct) {
        let label = format!("{:<18} {:<20} {:>5}", row.pair.engine, row.pair.reference, row.pair.work.burst);
        line(&label, row, out)?;
    }
    writeln!(out, "\nSequences of bursts\n")?;
    for row in rows {
        if let Some(sequence) = row.pair.work.sequence {
            let label = format!("{:<12} {:<18} {:<18}", row.pair.engine, row.pair.reference, sequence);
            line(&label, row, out)?;
        }
    }
    Ok(())
}

fn line(label: &str, row: &Row, out: &mut impl Write) -> io::Result<()> {
    let Median { value, low, high } = row.ratio;
    writeln!(out, "{label} {:>7.0} ns {value:>7.3}  [{low:.3}, {high:.3}]", row.ns)
}

fn rounded(value: f64, by: f64) -> f64 {
    (value * by).round() / by
}
