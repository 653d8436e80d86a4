//! Runs an acceptor under load and faults for as long as you like, and checks that nothing was lost or leaked.
//!
//! One acceptor at a time serves on loopback. Its clients run in a second process, with descriptors of their own. A scenario
//! passes if every client was answered or refused, every permit was released, the accept queue is empty, no descriptor was
//! leaked, and one more client is served.
//!
//! ```text
//! cargo run --release -p benches --bin soak -- --seconds 60
//! ```

mod client_loop;
mod client_process;
mod harness;
mod machine;
mod progress;
mod report;
mod request;
mod scenarios;
mod server;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use epoll_acceptor::Trigger;
use lexopt::prelude::*;

use crate::client_process::ClientProcess;
use crate::harness::{Harness, Scenario};
use crate::progress::Progress;
use crate::report::Report;

const HELP: &str = "\
Runs an acceptor under load, faults, an attack and overload, and checks that no
connection, permit or descriptor is lost.

Usage: soak [options]

      --seconds N  the time for all scenarios together [30]
      --only NAME  run this scenario; may be given several times
      --trigger T  level, edge or exclusive [level]
      --json       print one JSON object per scenario, and one for all
      --list       list the scenarios
  -h, --help       print this help

It takes up to one and a half times that long, and is aborted after twice that
long and two minutes. Exits with 0 if every check passes, with 1 if not.
";

/// The least that each of the two processes needs.
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
            eprintln!("soak: a check failed, see above");
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
            // Other processes of this program.
            Long(own) if format!("--{own}") == client_process::ARGUMENT => {
                return client_process::serve().map(|()| true).map_err(Into::into);
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
    let report = run_all(&chosen, &options)?;
    if options.json { report.print_json() } else { report.print_table() }?;
    Ok(report.is_balanced())
}

fn chosen(options: &Options) -> Result<Vec<Scenario>, Box<dyn Error>> {
    if !(options.seconds.is_finite() && (0.1..=1e6).contains(&options.seconds)) {
        return Err("--seconds must be between 0.1 and 1000000".into());
    }
    for name in &options.only {
        if !scenarios::ALL.iter().any(|scenario| scenario.name == name) {
            return Err(format!("unknown scenario {name:?}: see --list").into());
        }
    }
    let is_chosen = |name| options.only.is_empty() || options.only.iter().any(|only| only == name);
    Ok(scenarios::ALL.into_iter().filter(|scenario| is_chosen(scenario.name)).collect())
}

fn run_all(chosen: &[Scenario], options: &Options) -> Result<Report, Box<dyn Error>> {
    let &Options { seconds, trigger, .. } = options;
    abort_after(Duration::from_secs_f64(2.0 * seconds + 120.0))?;
    if machine::raise_descriptor_limit()? < DESCRIPTORS {
        return Err(
            format!("{DESCRIPTORS} descriptors are needed: raise the hard limit (`ulimit -Hn`)").into()
        );
    }
    let mut harness = Harness::new(ClientProcess::start()?, machine::most_connections()?, trigger)?;
    let progress = Progress::new(chosen.len());
    let shares: f64 = chosen.iter().map(|scenario| scenario.share).sum();
    let mut rows = Vec::new();
    for scenario in chosen {
        let time = (seconds * scenario.share / shares.max(f64::MIN_POSITIVE)).max(scenario.least);
        let time = Duration::from_secs_f64(time);
        progress.begin(scenario, time);
        harness.begin(time)?;
        let end = (scenario.run)(&mut harness).map_err(|error| format!("{}: {error}", scenario.name))?;
        progress.end(scenario, &end);
        rows.push((*scenario, time, end));
    }
    progress.finish();
    Ok(Report { trigger, rows })
}

/// Ends the process after `time`, whatever hangs.
fn abort_after(time: Duration) -> io::Result<()> {
    thread::Builder::new().name("bound".into()).spawn(move || {
        thread::sleep(time);
        eprintln!("soak: still running after {} s: aborted", time.as_secs());
        std::process::exit(3);
    })?;
    Ok(())
}
