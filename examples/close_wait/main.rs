//! A server that is down forever, asleep, with nothing to see in `lsof`: reproduced, explained and fixed.
//!
//! The same scenario runs on loopback against a faulty accept loop and against the acceptors of this crate. All figures
//! are observed from outside: in `/proc/net/tcp`, and on the CPU clock of the server's thread.
//!
//! ```text
//! cargo run --release --example close_wait
//! ```

mod client;
mod faulty;
mod observer;
mod ours;
mod report;
mod scenario;
mod service;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::scenario::{VARIANTS, run_variant};

const HELP: &str = "\
Strands connections with a faulty accept loop, and serves them with this crate.

Usage: close_wait [--json]

      --json  print one JSON object per line instead of the explanation
  -h, --help  print this help

Exits with 0 if the faulty loop stranded its clients and no acceptor of this
crate did.
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("close_wait: the faulty loop must strand connections, and this crate must not");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("close_wait: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether only the faulty loop stranded connections.
fn run() -> Result<bool, Box<dyn Error>> {
    let mut json = false;
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("json") => json = true,
            Short('h') | Long("help") => {
                io::stdout().write_all(HELP.as_bytes())?;
                return Ok(true);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    if json { print_json() } else { print_text() }
}

fn print_json() -> Result<bool, Box<dyn Error>> {
    let mut expected = true;
    for variant in VARIANTS {
        let outcome = run_variant(variant)?;
        expected &= outcome.is_expected();
        writeln!(io::stdout(), "{}", outcome.to_json())?;
    }
    Ok(expected)
}

fn print_text() -> Result<bool, Box<dyn Error>> {
    let mut out = io::stdout();
    writeln!(out, "{}\n{}", report::INTRODUCTION, report::HEAD)?;
    let mut expected = true;
    for variant in VARIANTS {
        let outcome = run_variant(variant)?;
        expected &= outcome.is_expected();
        writeln!(out, "{outcome}")?;
    }
    writeln!(out, "\n{}", report::FIX)?;
    Ok(expected)
}
