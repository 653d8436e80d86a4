//! A server that is replaced many times under load, without losing a client.
//!
//! Three kinds of processes take part, all of them this program: the conductor; the servers, each of which starts its
//! successor and hands over its listeners; and the clients, in a process of their own. Each client connects, sends a
//! request and expects a reply.
//!
//! ```text
//! cargo run --release -p benches --bin handover
//! ```

mod clients;
mod conductor;
mod server;

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use lexopt::prelude::*;

use crate::conductor::Plan;

const HELP: &str = "\
Replaces a server under load, and counts the clients that were lost.

Usage: handover [--connections N] [--handovers M] [--way WAY] [--json]

      --connections N  at least N connections in all (50000)
      --handovers M    replace the server M times (20)
      --clients C      C clients at a time (8)
      --way WAY        inherit: the successor inherits the listeners
                       rights: it receives them over a Unix socket
                       both: alternately (the default)
                       rebind: for comparison, without a handover: the
                       server closes, and the successor binds again
      --json           print one JSON object
  -h, --help           print this help

Exits with 0 if no client was lost.
";

/// How the successor gets the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Inherit,
    Rights,
    Both,
    Rebind,
}

impl Way {
    const ALL: [(Self, &str); 4] = [
        (Self::Inherit, "inherit"),
        (Self::Rights, "rights"),
        (Self::Both, "both"),
        (Self::Rebind, "rebind"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(way, _)| *way == self).map_or("", |(_, name)| name)
    }

    /// Returns the way of one handover.
    fn at(self, handover: u64) -> Self {
        match self {
            Self::Both if handover % 2 == 0 => Self::Inherit,
            Self::Both => Self::Rights,
            way => way,
        }
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, other)| *other == name);
        found
            .map(|(way, _)| *way)
            .ok_or_else(|| format!("{name:?}: the way must be inherit, rights, both or rebind"))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("handover: clients were lost");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("handover: process {}: {error}", std::process::id());
            ExitCode::from(2)
        }
    }
}

/// Returns whether no client was lost.
fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let mut plan = Plan { connections: 50_000, handovers: 20, clients: 8, way: Way::Both };
    let mut json = false;
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("connections") => plan.connections = arguments.value()?.parse()?,
            Long("handovers") => plan.handovers = arguments.value()?.parse()?,
            Long("clients") => plan.clients = arguments.value()?.parse()?,
            Long("way") => plan.way = arguments.value()?.parse()?,
            Long("json") => json = true,
            Short('h') | Long("help") => {
                io::stdout().write_all(HELP.as_bytes())?;
                return Ok(true);
            }
            // Processes that this program starts itself.
            Value(part) if part == "server" => return server::run(arguments).map(|()| true),
            Value(part) if part == "clients" => return clients::run(arguments).map(|()| true),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if plan.connections == 0 || plan.clients == 0 {
        return Err("--connections and --clients must be at least 1".into());
    }
    let outcome = conductor::conduct(&plan)?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", outcome.to_json())?;
    } else {
        write!(out, "{outcome}")?;
    }
    Ok(outcome.lost() == 0)
}
