//! The command line.

use std::time::Duration;

use epoll_acceptor::{Gate, Refusal, Trigger, WhenFull};
use lexopt::ValueExt;
use lexopt::prelude::*;

use crate::address::Address;

pub(crate) const HELP: &str = "\
An echo server: sends back what a client sends.

Usage: echo --listen ADDR [OPTIONS]

      --listen ADDR      127.0.0.1:8080, [::1]:0 (any port) or unix:PATH
      --trigger TRIGGER  level (default), edge or exclusive
      --limit N          serve at most N connections at once, over all workers
      --when-full WHAT   what happens to connections above the limit: wait
                         (default) leaves them in the kernel's accept queue
                         until one closes, shed closes them, reset resets them
      --refusal TEXT     with --when-full shed: sends this before the close
      --budget N         attempts to accept per pass (default 64)
      --workers N        threads, each with its own epoll (default 1)
      --stats SECONDS    print the counters this often
  -h, --help             print this help

Prints `listening on ADDR` when it is ready. On SIGINT or SIGTERM it prints its
counters and ends.
";

/// The configuration of the server.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: Address,
    pub(crate) trigger: Trigger,
    pub(crate) gate: Option<Gate>,
    pub(crate) budget: u32,
    pub(crate) workers: usize,
    pub(crate) stats: Option<Duration>,
}

/// The options as given, not yet checked against each other.
#[derive(Default)]
struct Given {
    listen: Option<Address>,
    trigger: Option<Trigger>,
    limit: Option<u32>,
    when_full: Option<String>,
    refusal: Option<String>,
    budget: Option<u32>,
    workers: Option<usize>,
    stats: Option<Duration>,
}

impl Options {
    /// Reads the command line. Returns `None` for `--help`.
    pub(crate) fn from_command_line() -> Result<Option<Self>, lexopt::Error> {
        let mut given = Given::default();
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("listen") => given.listen = Some(arguments.value()?.parse()?),
                Long("trigger") => given.trigger = Some(arguments.value()?.parse()?),
                Long("limit") => given.limit = Some(arguments.value()?.parse()?),
                Long("when-full") => given.when_full = Some(arguments.value()?.string()?),
                Long("refusal") => given.refusal = Some(arguments.value()?.string()?),
                Long("budget") => given.budget = Some(arguments.value()?.parse()?),
                Long("workers") => given.workers = Some(arguments.value()?.parse()?),
                Long("stats") => given.stats = Some(arguments.value()?.parse_with(seconds)?),
                _ => return Err(argument.unexpected()),
            }
        }
        given.check().map(Some)
    }
}

impl Given {
    fn check(self) -> Result<Options, lexopt::Error> {
        let gate = self.gate()?;
        let workers = self.workers.unwrap_or(1);
        if workers == 0 {
            return Err("--workers must be at least 1".into());
        }
        Ok(Options {
            listen: self.listen.ok_or("--listen ADDR is required")?,
            trigger: self.trigger.unwrap_or(Trigger::Level),
            gate,
            budget: self.budget.unwrap_or(64),
            workers,
            stats: self.stats,
        })
    }

    fn gate(&self) -> Result<Option<Gate>, lexopt::Error> {
        let when_full = match (self.when_full.as_deref(), &self.refusal) {
            (None | Some("wait"), None) => WhenFull::Wait,
            (Some("shed"), None) => WhenFull::Shed(Refusal::Close),
            (Some("shed"), Some(text)) => WhenFull::Shed(Refusal::message(text)),
            (Some("reset"), None) => WhenFull::Shed(Refusal::Reset),
            (Some("wait" | "reset") | None, Some(_)) => {
                return Err("--refusal requires --when-full shed".into());
            }
            (Some(_), _) => return Err("--when-full must be wait, shed or reset".into()),
        };
        match self.limit {
            Some(limit) => Ok(Some(Gate::builder(limit).when_full(when_full).build())),
            None if self.when_full.is_some() => Err("--when-full requires --limit N".into()),
            None => Ok(None),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err("must be a number of seconds above 0"),
    }
}
