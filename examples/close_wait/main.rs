//! How a server can be down for good, asleep, with nothing to show in `lsof`: seen, explained and cured.
//!
//! The same scene is played on loopback for a faulty accept loop and for the acceptors of this crate. What is
//! printed was measured from outside, in `/proc/net/tcp` and on the clock of the server's thread.
//!
//! ```text
//! cargo run --release --example close_wait
//! ```

mod client;
mod faulty;
mod ours;
mod outsider;
mod report;
mod scene;
mod service;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::scene::{CASTS, play};

const HELP: &str = "\
Plays the outage with no owner, on a faulty accept loop and on this crate.

Usage: close_wait [--json]

      --json  print one JSON object a line instead of the story
  -h, --help  print this help

Exits with 0 if the faulty loop stranded its clients and no acceptor of this
crate did.
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "close_wait: it did not go as told: the faulty loop should strand, and nothing else should"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("close_wait: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went as the story says.
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
    if json { print_json() } else { print_story() }
}

fn print_json() -> Result<bool, Box<dyn Error>> {
    let mut as_told = true;
    for cast in CASTS {
        let outcome = play(cast)?;
        as_told &= outcome.is_as_told();
        writeln!(io::stdout(), "{}", outcome.to_json())?;
    }
    Ok(as_told)
}

fn print_story() -> Result<bool, Box<dyn Error>> {
    let mut out = io::stdout();
    writeln!(out, "{}\n{}", report::STORY, report::HEAD)?;
    let mut as_told = true;
    for cast in CASTS {
        let outcome = play(cast)?;
        as_told &= outcome.is_as_told();
        writeln!(out, "{outcome}")?;
    }
    writeln!(out, "\n{}", report::CURE)?;
    Ok(as_told)
}
