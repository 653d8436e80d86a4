//! `acceptq doctor`: diagnoses a listener.

mod facts;
pub(crate) mod collect;
pub(crate) mod diagnose;
mod queue;
mod report;
mod thread_sampler;
mod messages;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::diagnose::{Cause, Verdict, diagnose};
use crate::probe::{Diag, Target};
use crate::{NO_LISTENER, eprint, print_error, print_ignoring_epipe, width};

/// Diagnoses a listening socket and recommends what to do
///
/// Observes the socket and its owner for a second, read-only. Every user can see the queue and its
/// connections; only the owner's user and root can see the owner's threads and epoll registrations.
#[derive(Args, Debug)]
#[command(after_help = exit_statuses())]
pub(crate) struct Doctor {
    /// A port, an address (127.0.0.1:80), the path of a Unix socket, or @name of an abstract one
    #[arg(value_name = "PORT|PATH")]
    target: Target,
    /// Print JSON; fields that are not visible are null
    #[arg(long)]
    json: bool,
    /// Observation period in seconds
    #[arg(long = "for", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    time: Duration,
}

fn exit_statuses() -> String {
    let mut text = String::from("Exit status by verdict (with several listeners, the worst):\n");
    for verdict in Verdict::ALL {
        text.push_str(&format!(
            "  {:>3}  {}: {}\n",
            verdict.exit_status(),
            verdict.name(),
            verdict.meaning()
        ));
    }
    text.push_str("    1  acceptq failed\n    2  invalid arguments\n    3  nothing listens at the target");
    text
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds, such as 0.5".to_string())?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("must be between 0.1 and 3600 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Doctor {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let diag = Diag::new()?;
        let is_interactive = io::stderr().is_terminal() && !self.json;
        if is_interactive {
            eprint(&format!("observing {} for {} ...", self.target, crate::format::duration(self.time)));
        }
        let collected = collect::collect(&diag, &self.target, self.time);
        if is_interactive {
            // Erases the line.
            eprint("\r\x1b[2K");
        }
        let collected = collected?;
        if collected.inspections.is_empty() {
            return self.no_listener(collected.closed);
        }
        let mut diagnoses: Vec<_> = collected
            .inspections
            .iter()
            .map(|inspection| (inspection, diagnose(&inspection.facts)))
            .collect();
        // The worst first; of equal verdicts the longest queue.
        diagnoses.sort_by_key(|(inspection, cause)| {
            std::cmp::Reverse((cause.verdict(), inspection.listener.queued))
        });
        let verdict = diagnoses.first().map_or(Cause::NothingSeen, |(_, cause)| *cause).verdict();
        match self.json {
            true => print_ignoring_epipe(&format!("{:#}\n", report::json(&diagnoses, &collected)))?,
            false => print_ignoring_epipe(&report::text(&diagnoses, &collected, width()))?,
        }
        Ok(ExitCode::from(verdict.exit_status()))
    }

    fn no_listener(&self, closed: usize) -> io::Result<ExitCode> {
        if self.json {
            let nothing = json!({ "verdict": null, "listeners": [], "closed_meanwhile": closed });
            print_ignoring_epipe(&format!("{nothing:#}\n"))?;
        }
        let target = &self.target;
        print_error(&match closed {
            0 => format!(
                "nothing listens at {target} in this network namespace; for a container, run this in its \
                 namespace (nsenter -t PID -n)"
            ),
            _ => {
                format!("the listener at {target} was closed during the observation; run this again")
            }
        });
        Ok(ExitCode::from(NO_LISTENER))
    }
}
