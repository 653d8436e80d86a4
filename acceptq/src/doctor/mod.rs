//! `acceptq doctor`: diagnoses a listener.

pub(crate) mod collect;
pub(crate) mod diagnose;
mod details;
mod explain;
pub(crate) mod facts;
mod inspection;
mod json;
mod messages;
mod queue;
mod report;
pub(crate) mod signs;
mod thread_sampler;
mod workers;

pub(crate) use inspection::Inspection;
pub(crate) use json::{SCHEMA, ms, round};

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::collect::Collected;
use self::diagnose::{Verdict, diagnose};
use crate::probe::{Diag, Namespace, Target, Targets};
use crate::{NO_LISTENER, eprint, print_error, print_ignoring_epipe, seconds, width};

/// Diagnoses listening sockets and names the next command
///
/// Observes each socket and its owner for a second, read-only; without a target, every listening socket. Every
/// user can see the queue and its connections; only the owner's user and root can see the owner's threads and
/// epoll registrations, and only root can count system calls.
#[derive(Args, Debug)]
#[command(after_help = exit_statuses())]
pub(crate) struct Doctor {
    /// Ports (8080, :8080, http), addresses (127.0.0.1:80, localhost:80), URLs, Unix sockets, @names
    #[arg(value_name = "TARGET")]
    targets: Vec<Target>,
    /// All listening sockets of this process, in its network namespace
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..),
          conflicts_with_all = ["targets", "netns"])]
    pid: Option<i32>,
    /// Print the decision table: each verdict, the facts it needs, what else it might be
    #[arg(long)]
    explain: bool,
    /// Print the details: connections, threads, epoll registrations, drops
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON on one line; fields that are not visible are null
    #[arg(long)]
    json: bool,
    /// Observation period in seconds
    #[arg(long = "for", value_name = "SECONDS", default_value = "1", value_parser = period)]
    time: Duration,
}

fn exit_statuses() -> String {
    let mut text =
        String::from("Exit status by verdict (with several listeners, the worst; 0, 4, 5: no fault seen):\n");
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

pub(crate) fn period(text: &str) -> Result<Duration, String> {
    seconds(text, &(0.1..=3600.0))
}

impl Doctor {
    pub(crate) fn run(&self, netns: Option<String>) -> io::Result<ExitCode> {
        if self.explain {
            print_ignoring_epipe(&explain::table(width()))?;
            return Ok(ExitCode::SUCCESS);
        }
        let (diag, targets, other) = self.select()?;
        let is_interactive = io::stderr().is_terminal() && !self.json;
        if is_interactive {
            eprint(&format!("observing {targets} for {} ...", crate::format::duration(self.time)));
        }
        let collected = collect::collect(&diag, &targets, self.time);
        if is_interactive {
            // Erases the line.
            eprint("\r\x1b[2K");
        }
        let collected = Collected { netns: netns.or(other), ..collected? };
        if collected.inspections.is_empty() {
            return self.no_listener(&targets, collected.closed);
        }
        let mut diagnoses: Vec<_> = collected
            .inspections
            .iter()
            .map(|inspection| (inspection, diagnose(&inspection.facts)))
            .collect();
        // The worst first; of equal verdicts the longest queue.
        diagnoses.sort_by_key(|(inspection, rule)| {
            std::cmp::Reverse((rule.verdict(), inspection.listener.queued))
        });
        let verdict = diagnoses.first().map_or(Verdict::Undetermined, |(_, rule)| rule.verdict());
        match self.json {
            true => print_ignoring_epipe(&format!("{}\n", json::json(&diagnoses, &collected)))?,
            false => {
                print_ignoring_epipe(&report::text(&diagnoses, &collected, width(), self.verbose))?;
            }
        }
        Ok(ExitCode::from(verdict.exit_status()))
    }

    /// Returns the listeners to observe, and the argument of `--netns` if it has entered another namespace.
    fn select(&self) -> io::Result<(Diag, Targets, Option<String>)> {
        let Some(pid) = self.pid else { return Ok((Diag::new()?, Targets::each(&self.targets), None)) };
        let namespace = Namespace::of_process(pid)?;
        // Even entering the current namespace needs privileges.
        let is_other = !namespace.is_current()?;
        if is_other {
            namespace.enter()?;
        }
        let diag = Diag::new()?;
        let targets = Targets::of_process(&diag, pid)?;
        Ok((diag, targets, namespace.name.filter(|_| is_other)))
    }

    fn no_listener(&self, targets: &Targets, closed: usize) -> io::Result<ExitCode> {
        if self.json {
            let nothing =
                json!({ "schema": SCHEMA, "verdict": null, "listeners": [], "closed_meanwhile": closed });
            print_ignoring_epipe(&format!("{nothing}\n"))?;
        }
        print_error(&match (closed, self.pid) {
            (0, Some(pid)) => format!("process {pid} has no listening socket"),
            (0, None) => format!(
                "nothing listens at {targets} in this network namespace; acceptq list --all-netns shows those \
                 of containers, and --netns selects one"
            ),
            _ => {
                format!("the listener at {targets} was closed during the observation; run this again")
            }
        });
        Ok(ExitCode::from(NO_LISTENER))
    }
}
