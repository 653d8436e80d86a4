//! The output: one line per point.

use crate::args::Args;
use crate::engines::abba::Ratio;
use crate::engines::machine;

pub(crate) struct Report {
    pub(crate) args: Args,
    machine: String,
    broken: usize,
}

/// One number that grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    /// What is counted along it.
    pub(crate) of: &'static str,
    /// What the ratio 1 stands for.
    pub(crate) base: &'static str,
    /// The unit of the cost: nanoseconds per this.
    pub(crate) per: &'static str,
}

impl Report {
    pub(crate) fn new(args: Args) -> Self {
        Self { args, machine: machine::describe(), broken: 0 }
    }

    /// Returns the number of blocks of base, point, point, base: odd, so that there is a median.
    pub(crate) fn blocks(&self) -> usize {
        if self.args.quick { 1 } else { 9 }
    }

    pub(crate) fn axis(&self, axis: Axis) {
        if !self.args.json {
            let Axis { name, of, base, per } = axis;
            println!("\n{name}: the cost of a {per}, by {of} (1.00 is {base})");
            println!("{:>10} {:>8} {:>17} {:>10}   bound", of, "ratio", "quartiles", "ns");
        }
    }

    /// Prints a point, and its bound, if it has one.
    pub(crate) fn point(&mut self, axis: Axis, at: usize, ratio: Ratio, bound: Option<f64>) {
        let holds = bound.is_none_or(|bound| ratio.median <= bound);
        self.broken += usize::from(!holds);
        if self.args.json {
            let line = serde_json::json!({
                "bench": "growth", "axis": axis.name, "of": axis.of, "per": axis.per,
                "base": axis.base, "at": at,
                "ratio": ratio.median, "low": ratio.low, "high": ratio.high,
                "base_ns": ratio.base, "ns": ratio.point,
                "claim": bound, "holds": holds, "quick": self.args.quick, "machine": self.machine,
            });
            println!("{line}");
            return;
        }
        let Ratio { median, low, high, point, .. } = ratio;
        let bound = match bound {
            None => String::new(),
            Some(bound) => format!("<= {bound:.2}{}", if holds { "" } else { ", EXCEEDED" }),
        };
        println!("{at:>10} {median:>8.3} {:>17} {point:>10.0}   {bound}", format!("{low:.3} - {high:.3}"));
    }

    pub(crate) fn finish(self) {
        if self.broken > 0 && !self.args.json {
            println!("\n{} bounds are exceeded in this run. Is the machine idle?", self.broken);
        }
    }
}
