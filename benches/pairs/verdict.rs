//! The bounds of the ratios, and whether they hold.

use std::io::{self, Write};

use crate::plans::{AGAIN, REFERENCE, URING};
use crate::report::Row;
use crate::work::Pair;

/// How far the reference may deviate from itself before the run is invalid.
const NOISE: f64 = 0.03;
/// A trigger against the same system calls, hand-written.
const BY_HAND: f64 = 1.05;
/// Prediction, against the better of the two loops without it, on any sequence of bursts.
const PREDICTING: f64 = 1.03;
const BEST: [(usize, f64); 5] = [(1, 0.46), (2, 0.65), (4, 0.76), (32, 0.91), (512, 0.96)];
const DEFAULT: [(usize, f64); 5] = [(1, 0.48), (2, 0.68), (4, 0.78), (32, 0.92), (512, 0.97)];
const EDGE: [(usize, f64); 5] = [(1, 0.55), (2, 0.72), (4, 0.80), (32, 0.93), (512, 0.98)];
const PEERS: [(&str, usize, f64); 9] = [
    ("tokio", 1, 0.35),
    ("tokio", 4, 0.45),
    ("tokio", 32, 0.50),
    ("mio", 1, 0.50),
    ("polling", 1, 0.50),
    ("polling/until-would-block", 1, 0.50),
    (URING, 1, 1.12),
    (URING, 4, 1.18),
    (URING, 32, 1.12),
];
/// `AsyncAcceptor` against tokio's listener, both with the registration of each stream.
const IN_TOKIO: [(usize, f64); 3] = [(1, 0.70), (4, 0.85), (32, 0.90)];
/// The engines that the best is chosen from.
const OURS: [&str; 3] = ["crate/level", "crate/edge", "crate/exclusive"];

/// Returns the bound of a comparison.
pub(crate) fn bound(pair: &Pair) -> Option<f64> {
    let at = |bounds: &[(usize, f64)]| {
        bounds.iter().find(|(burst, _)| *burst == pair.work.burst).map(|(_, bound)| *bound)
    };
    match (pair.engine, pair.reference) {
        // The bound against the better loop is a bound against both.
        _ if pair.work.sequence.is_some() => Some(PREDICTING),
        ("crate/level", REFERENCE) => at(&DEFAULT),
        ("crate/edge", REFERENCE) => at(&EDGE),
        (_, REFERENCE) => None,
        (_, reference) if reference.starts_with("libc/") => Some(BY_HAND),
        ("crate/level/tokio", "tokio") => at(&IN_TOKIO),
        ("crate/level", reference) => PEERS
            .iter()
            .find(|(peer, burst, _)| *peer == reference && *burst == pair.work.burst)
            .map(|(_, _, bound)| *bound),
        _ => None,
    }
}

/// Prints each bound. Returns whether all of them hold.
pub(crate) fn print(rows: &[Row], out: &mut impl Write) -> io::Result<bool> {
    writeln!(out, "\nBounds, and measured ratios\n")?;
    let mut checker = Checker { out, holds: true };
    for row in rows {
        if let Some(bound) = bound(&row.pair) {
            checker.at_most(row, bound)?;
        }
    }
    writeln!(checker.out, "\nThe best of {}\n", OURS.join(", "))?;
    for (burst, bound) in BEST {
        let of = rows.iter().filter(|row| row.pair.is_of_the_table() && row.pair.work.burst == burst);
        let ours = of.filter(|row| OURS.contains(&row.pair.engine));
        if let Some(best) = ours.min_by(|a, b| a.ratio.value.total_cmp(&b.ratio.value)) {
            checker.at_most(best, bound)?;
        }
    }
    checker.noise(rows)
}

struct Checker<'a, W> {
    out: &'a mut W,
    holds: bool,
}

impl<W: Write> Checker<'_, W> {
    fn at_most(&mut self, row: &Row, bound: f64) -> io::Result<()> {
        let ratio = row.ratio;
        let verdict = if ratio.high <= bound {
            "holds"
        } else if ratio.value <= bound {
            "holds, within the noise"
        } else if ratio.low <= bound {
            "BROKEN, within the noise"
        } else {
            "BROKEN"
        };
        self.holds &= ratio.value <= bound;
        self.line(row, &format!("<= {bound:.2}"), verdict)
    }

    /// Checks the reference against itself: every ratio may be off by as much.
    fn noise(mut self, rows: &[Row]) -> io::Result<bool> {
        writeln!(self.out, "\nThe reference against itself\n")?;
        for row in rows.iter().filter(|row| row.pair.engine == AGAIN) {
            let quiet = (row.ratio.value - 1.0).abs() <= NOISE;
            self.holds &= quiet;
            self.line(row, "1 ± 0.03", if quiet { "holds" } else { "TOO NOISY: this run is invalid" })?;
        }
        Ok(self.holds)
    }

    fn line(&mut self, row: &Row, bound: &str, verdict: &str) -> io::Result<()> {
        let of = row.pair.work.sequence.map_or_else(|| row.pair.work.burst.to_string(), str::to_owned);
        writeln!(
            self.out,
            "{:<30} {:<24} {of:>18} {bound:>8} {:>7.3}  [{:.3}, {:.3}]  {verdict}",
            row.pair.engine, row.pair.reference, row.ratio.value, row.ratio.low, row.ratio.high
        )
    }
}
