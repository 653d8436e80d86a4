//! One line a point.

use crate::engines::abba::Ratio;
use crate::engines::args::Args;
use crate::engines::machine;

pub(crate) struct Report {
    pub(crate) args: Args,
    machine: String,
    broken: usize,
}

/// One thing that grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    /// What is counted along it.
    pub(crate) of: &'static str,
    /// What a ratio of 1 is.
    pub(crate) base: &'static str,
    /// What the cost is of.
    pub(crate) per: &'static str,
}

impl Report {
    pub(crate) fn new(args: Args) -> Self {
        Self { args, machine: machine::describe(), broken: 0 }
    }

    /// How many blocks of base, point, point, base: an odd number, for there to be a middle.
    pub(crate) fn blocks(&self) -> usize {
        if self.args.quick { 1 } else { 9 }
    }

    pub(crate) fn axis(&self, axis: Axis) {
        if !self.args.json {
            let Axis { name, of, base, per } = axis;
            println!("\n{name}: the cost of a {per}, by {of} (1.00 is {base})");
            println!("{:>10} {:>8} {:>17} {:>10}   claim", of, "ratio", "half of all in", "ns");
        }
    }

    /// A point, and what is claimed of it, if anything.
    pub(crate) fn point(&mut self, axis: Axis, at: usize, ratio: Ratio, claim: Option<f64>) {
        let holds = claim.is_none_or(|claim| ratio.median <= claim);
        self.broken += usize::from(!holds);
        if self.args.json {
            let line = serde_json::json!({
                "bench": "growth", "axis": axis.name, "of": axis.of, "per": axis.per,
                "base": axis.base, "at": at,
                "ratio": ratio.median, "low": ratio.low, "high": ratio.high,
                "base_ns": ratio.base, "ns": ratio.point,
                "claim": claim, "holds": holds, "quick": self.args.quick, "machine": self.machine,
            });
            println!("{line}");
            return;
        }
        let Ratio { median, low, high, point, .. } = ratio;
        let claim = match claim {
            None => String::new(),
            Some(claim) => format!("<= {claim:.2}{}", if holds { "" } else { ", AND IT IS NOT" }),
        };
        println!("{at:>10} {median:>8.3} {:>17} {point:>10.0}   {claim}", format!("{low:.3} - {high:.3}"));
    }

    pub(crate) fn finish(self) {
        if self.broken > 0 && !self.args.json {
            println!("\n{} claims do not hold in this run. Is the machine quiet?", self.broken);
        }
    }
}
