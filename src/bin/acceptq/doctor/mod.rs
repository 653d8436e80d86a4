//! `acceptq doctor`: the whole investigation at once, and from outside.

mod facts;
pub(crate) mod gather;
pub(crate) mod judge;
mod queue;
mod report;
mod watched;
mod words;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::judge::{Cause, Verdict, judge};
use crate::see::{Diag, Target};
use crate::{NO_LISTENER, aside, complain, tell, width};

/// Tells what is the matter with a listening socket, and what to do.
///
/// Watches the socket and its owner for a while, changes nothing, and needs no privileges for what needs
/// none: the queue and its connections are seen by everyone, how the owner watches them by the owner's
/// user and by root.
#[derive(Args, Debug)]
#[command(after_help = exit_statuses())]
pub(crate) struct Doctor {
    /// A port, an address (127.0.0.1:80), a path of a Unix socket, or @name of an abstract one
    #[arg(value_name = "PORT|PATH")]
    target: Target,
    /// Print JSON; what could not be seen is null
    #[arg(long)]
    json: bool,
    /// How long to watch, in seconds
    #[arg(long = "for", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    time: Duration,
}

fn exit_statuses() -> String {
    let mut text = String::from("Exit status, by verdict (of several listeners, the worst):\n");
    for verdict in Verdict::ALL {
        text.push_str(&format!(
            "  {:>3}  {}: {}\n",
            verdict.exit_status(),
            verdict.name(),
            verdict.meaning()
        ));
    }
    text.push_str("    1  the tool itself failed\n    2  wrong arguments\n    3  nothing listens there");
    text
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted, such as 0.5".to_string())?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("between 0.1 and 3600 seconds, please".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Doctor {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let diag = Diag::new()?;
        let is_watched = io::stderr().is_terminal() && !self.json;
        if is_watched {
            aside(&format!("watching {} for {} ...", self.target, crate::words::duration(self.time)));
        }
        let gathered = gather::gather(&diag, &self.target, self.time);
        if is_watched {
            // The line has said what it had to say.
            aside("\r\x1b[2K");
        }
        let gathered = gathered?;
        if gathered.cases.is_empty() {
            return self.nobody(gathered.closed);
        }
        let mut judged: Vec<_> = gathered.cases.iter().map(|case| (case, judge(&case.facts))).collect();
        // The worst first; among equals the longest queue.
        judged.sort_by_key(|(case, cause)| std::cmp::Reverse((cause.verdict(), case.listener.queued)));
        let verdict = judged.first().map_or(Cause::NothingSeen, |(_, cause)| *cause).verdict();
        match self.json {
            true => tell(&format!("{:#}\n", report::json(&judged, &gathered)))?,
            false => tell(&report::text(&judged, &gathered, width()))?,
        }
        Ok(ExitCode::from(verdict.exit_status()))
    }

    fn nobody(&self, closed: usize) -> io::Result<ExitCode> {
        if self.json {
            let nothing = json!({ "verdict": null, "listeners": [], "closed_meanwhile": closed });
            tell(&format!("{nothing:#}\n"))?;
        }
        let target = &self.target;
        complain(&match closed {
            0 => format!(
                "nothing listens at {target} in this network namespace; a container's listeners are seen from \
                 inside it (nsenter -t PID -n)"
            ),
            _ => {
                format!("what listened at {target} was closed while it was watched; if it is back, ask again")
            }
        });
        Ok(ExitCode::from(NO_LISTENER))
    }
}
