//! The command line.

use std::time::Duration;

use lexopt::prelude::*;

use crate::work::BURSTS;

pub(crate) const HELP: &str = "\
Compares ways to accept, as ratios inside one process.

Usage: cargo bench -p benches --bench pairs -- [options]

      --seconds N     run for N seconds [180]; longer runs give narrower intervals
      --burst K,..    measure only these bursts [1,2,4,32,512]
      --engine NAME   make only comparisons with an engine whose name contains this; may be repeated
      --quick         smoke run: everything once, and no burst above 32
      --json          print one JSON object per line
      --verdict       print each bound and whether it holds (to stderr with --json); exit with 1 if one does not
      --list          print the engines
  -h, --help          print this help
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) time: Duration,
    pub(crate) bursts: Vec<usize>,
    pub(crate) engines: Vec<String>,
    /// The least number of connections in one quarter of a block.
    pub(crate) connections: usize,
    pub(crate) json: bool,
    pub(crate) verdict: bool,
    pub(crate) list: bool,
    /// Everything once, without warm-up: the figures are meaningless.
    pub(crate) quick: bool,
}

impl Options {
    /// Reads the command line. Returns `None` for `--help`.
    pub(crate) fn from_command_line() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            time: Duration::from_secs(180),
            bursts: BURSTS.to_vec(),
            engines: Vec::new(),
            connections: 192,
            json: false,
            verdict: false,
            list: false,
            quick: false,
        };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("seconds") => options.time = Duration::from_secs(arguments.value()?.parse()?),
                Long("burst") => options.bursts = bursts(&arguments.value()?.string()?)?,
                Long("engine") => options.engines.push(arguments.value()?.string()?),
                // `cargo test --benches` passes `--test`.
                Long("quick" | "test") => options.quick = true,
                Long("json") => options.json = true,
                Long("verdict") => options.verdict = true,
                Long("list") => options.list = true,
                Long("bench") => {}
                Short('h') | Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        if options.quick {
            options.bursts.retain(|burst| *burst <= 32);
            (options.time, options.connections) = (Duration::ZERO, 1);
        }
        Ok(Some(options))
    }

    /// Returns whether the comparison of these two is selected.
    pub(crate) fn wants(&self, engine: &str, reference: &str) -> bool {
        self.engines.is_empty()
            || self.engines.iter().any(|part| engine.contains(part) || reference.contains(part))
    }
}

fn bursts(list: &str) -> Result<Vec<usize>, lexopt::Error> {
    let bursts: Vec<usize> =
        list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| bad(list))?;
    if bursts.iter().all(|burst| (1..=4096).contains(burst)) { Ok(bursts) } else { Err(bad(list)) }
}

fn bad(list: &str) -> lexopt::Error {
    format!("{list:?}: bursts must be numbers from 1 to 4096, separated by commas").into()
}
