//! The command line of the hosted echo servers.

use epoll_acceptor::{Gate, Refusal, Trigger, WhenFull};
use lexopt::ValueExt;
use lexopt::prelude::*;

use crate::address::Address;

/// Printed for `--help`, after a usage line of their own.
pub(crate) const HELP: &str = "      --listen ADDR      127.0.0.1:8080, [::1]:0 (any port) or unix:PATH
      --trigger TRIGGER  level (default), edge or exclusive
      --limit N          serve at most N connections at once
      --when-full WHAT   what happens to connections above the limit: wait
                         (default) leaves them in the kernel's accept queue
                         until one closes, shed closes them
      --budget N         attempts to accept per pass (default 64)
  -h, --help             print this help

Prints `listening on ADDR` when it is ready. On SIGINT or SIGTERM it prints its
counters and ends.
";

/// The configuration of a server.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: Address,
    pub(crate) trigger: Trigger,
    pub(crate) gate: Gate,
    pub(crate) budget: u32,
}

/// More connections than a server has descriptors.
const NO_LIMIT: u32 = 1_000_000;

impl Options {
    /// Reads the command line. Returns `None` for `--help`.
    pub(crate) fn from_command_line() -> Result<Option<Self>, lexopt::Error> {
        let (mut listen, mut trigger, mut limit, mut when_full) =
            (None, Trigger::Level, None, WhenFull::Wait);
        let mut budget = 64;
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("listen") => listen = Some(arguments.value()?.parse()?),
                Long("trigger") => trigger = arguments.value()?.parse()?,
                Long("limit") => limit = Some(arguments.value()?.parse()?),
                Long("when-full") => when_full = arguments.value()?.parse_with(parse_when_full)?,
                Long("budget") => budget = arguments.value()?.parse()?,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Some(Self {
            listen: listen.ok_or("--listen ADDR is required")?,
            trigger,
            gate: Gate::builder(limit.unwrap_or(NO_LIMIT)).when_full(when_full).build(),
            budget,
        }))
    }
}

fn parse_when_full(text: &str) -> Result<WhenFull, &'static str> {
    match text {
        "wait" => Ok(WhenFull::Wait),
        "shed" => Ok(WhenFull::Shed(Refusal::Close)),
        _ => Err("--when-full must be wait or shed"),
    }
}
