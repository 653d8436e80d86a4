//! Everything that may happen to a server at its door, for as long as one likes, and the accounts at the end.
//!
//! One acceptor at a time serves on loopback; its clients are a second process, so that their descriptors are their
//! own. Each scenario ends when all is calm: whoever connected knows what became of it, every permit is back, nobody is
//! queued, as many descriptors are open as before, and a newcomer is served.
//!
//! ```text
//! cargo run --release --example soak -- --seconds 60
//! ```

mod clients;
mod crowd;
mod machine;
mod order;
mod progress;
mod report;
mod scenarios;
mod server;
mod stage;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use epoll_acceptor::Trigger;
use lexopt::prelude::*;

use crate::clients::Clients;
use crate::progress::Progress;
use crate::report::Report;
use crate::stage::{Scenario, Stage};

const HELP: &str = "\
Puts an acceptor under load, faults, an attack and overload, and closes the accounts.

Usage: soak [options]

      --seconds N  the time for all scenarios together [30]
      --only NAME  this scenario; may be given several times
      --trigger T  level, edge or exclusive [level]
      --json       a JSON object a line for each scenario, and one for all
      --list       the scenarios
  -h, --help       print this help

It lasts up to half as long again, and is given up after twice the time and two
minutes. Exits with 0 if everything came true, with 1 if not.
";

/// So many at the least, for each of the two processes.
const DESCRIPTORS: u64 = 1024;

struct Options {
    seconds: f64,
    only: Vec<String>,
    trigger: Trigger,
    json: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("soak: not everything came true, see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut options = Options { seconds: 30.0, only: Vec::new(), trigger: Trigger::Level, json: false };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seconds") => options.seconds = arguments.value()?.parse()?,
            Long("only") => options.only.push(arguments.value()?.string()?),
            Long("trigger") => options.trigger = arguments.value()?.parse()?,
            Long("json") => options.json = true,
            // The other processes of this program.
            Long(own) if format!("--{own}") == clients::ARGUMENT => {
                return clients::serve().map(|()| true).map_err(Into::into);
            }
            Long(own) if format!("--{own}") == scenarios::CHILD => {
                return scenarios::child().map(|()| true).map_err(Into::into);
            }
            Long("list") => {
                for scenario in scenarios::ALL {
                    writeln!(io::stdout(), "{:<12}{}", scenario.name, scenario.about)?;
                }
                return Ok(true);
            }
            Short('h') | Long("help") => {
                io::stdout().write_all(HELP.as_bytes())?;
                return Ok(true);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    let chosen = chosen(&options)?;
    let report = play(&chosen, &options)?;
    if options.json { report.print_json() } else { report.print_table() }?;
    Ok(report.is_balanced())
}

fn chosen(options: &Options) -> Result<Vec<Scenario>, Box<dyn Error>> {
    if !(options.seconds.is_finite() && (0.1..=1e6).contains(&options.seconds)) {
        return Err("the time should be some seconds: take --seconds 30".into());
    }
    for name in &options.only {
        if !scenarios::ALL.iter().any(|scenario| scenario.name == name) {
            return Err(format!("there is no scenario {name:?}: see --list").into());
        }
    }
    let is_chosen = |name| options.only.is_empty() || options.only.iter().any(|only| only == name);
    Ok(scenarios::ALL.into_iter().filter(|scenario| is_chosen(scenario.name)).collect())
}

fn play(chosen: &[Scenario], options: &Options) -> Result<Report, Box<dyn Error>> {
    let &Options { seconds, trigger, .. } = options;
    give_up_after(Duration::from_secs_f64(2.0 * seconds + 120.0))?;
    if machine::raise_descriptor_limit()? < DESCRIPTORS {
        return Err(format!("it takes {DESCRIPTORS} descriptors: raise the hard limit (`ulimit -Hn`)").into());
    }
    let mut stage = Stage::new(Clients::start()?, machine::most_connections()?, trigger)?;
    let progress = Progress::new(chosen.len());
    let shares: f64 = chosen.iter().map(|scenario| scenario.share).sum();
    let mut rows = Vec::new();
    for scenario in chosen {
        let time = (seconds * scenario.share / shares.max(f64::MIN_POSITIVE)).max(scenario.least);
        let time = Duration::from_secs_f64(time);
        progress.begin(scenario, time);
        stage.set(time)?;
        let end = (scenario.play)(&mut stage).map_err(|error| format!("{}: {error}", scenario.name))?;
        progress.end(scenario, &end);
        rows.push((*scenario, time, end));
    }
    progress.over();
    Ok(Report { trigger, rows })
}

/// Whatever goes wrong, it comes to an end.
fn give_up_after(time: Duration) -> io::Result<()> {
    thread::Builder::new().name("bound".into()).spawn(move || {
        thread::sleep(time);
        eprintln!("soak: not at its end after {} s: given up", time.as_secs());
        std::process::exit(3);
    })?;
    Ok(())
}
