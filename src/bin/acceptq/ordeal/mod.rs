//! `acceptq ordeal`: puts a running server through the outage.

pub(crate) mod client;
mod freeze;
mod report;
mod sight;
mod stages;
mod verdict;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::client::Speech;
use self::sight::Sight;
use self::stages::Plan;
use crate::see::Target;
use crate::{NO_LISTENER, complain, tell, width};

/// How long a client is silent, so that a server that speaks first, or refuses, can do so.
const QUIET: Duration = Duration::from_millis(200);
/// As the bar counts them.
const STAGES: u64 = 6;

/// Puts a running server through the outage, and says whether it strands, spins, refuses or waits well.
///
/// Clients fill the server up to its limit (or --hold of them do) and stay; a crowd connects at
/// once; half of it
/// quits; one of the held leaves; newcomers come, and must be answered or refused. Meant for servers under
/// test: others get no service meanwhile, and one that strands has to be restarted.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub(crate) struct Ordeal {
    /// A port, an address (127.0.0.1:80), a path of a Unix socket, or @name of an abstract one
    #[arg(value_name = "PORT|PATH")]
    target: Target,
    /// How many may be held to find the limit: more than the server takes
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    hold: u16,
    /// How many come at once; fewer if the queue has no room for so many
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(2..))]
    flood: u16,
    /// What a client says after 200 ms of silence; \n, \r, \t, \0 and \\ are understood
    #[arg(long, value_name = "TEXT", default_value = "PING\\n", value_parser = unescape)]
    send: Text,
    /// How long a client waits for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    patience: Duration,
    /// The server's process, where it is not the one that has the listener, or cannot be found
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Stop the server (SIGSTOP) while the crowd connects, so that one wake-up finds them all
    #[arg(long)]
    freeze: bool,
    /// Also servers at addresses that are not loopback. Only your own!
    #[arg(long)]
    anywhere: bool,
    /// Print JSON; what could not be seen is null
    #[arg(long)]
    json: bool,
}

/// What is sent. Its own type, for clap takes a `Vec` for many values.
#[derive(Clone, Debug)]
struct Text(Vec<u8>);

const EXIT_STATUSES: &str = "\
Exit status, by verdict:
    0  it waits well, refuses well, or met no limit
   10  strands: there is room, and those who wait are not taken
   13  spins: at its limit it burns processor time
   20  undetermined
    1  the tool itself failed
    2  wrong arguments
    3  nothing listens there";

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted, such as 0.5".to_string())?;
    if !(0.5..=60.0).contains(&seconds) {
        return Err("between 0.5 and 60 seconds, please".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn unescape(text: &str) -> Result<Text, String> {
    let mut out = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('0') => '\0',
                Some('\\') => '\\',
                _ => return Err("after a backslash: n, r, t, 0 or another backslash".into()),
            },
            c => c,
        };
        out.extend(c.to_string().into_bytes());
    }
    if out.is_empty() {
        return Err("something must be said".into());
    }
    Ok(Text(out))
}

impl Ordeal {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let began = Instant::now();
        let Some((sight, door)) = Sight::of(&self.target, self.pid, self.anywhere)? else {
            complain(&format!("nothing listens at {} in this network namespace", self.target));
            return Ok(ExitCode::from(NO_LISTENER));
        };
        if self.freeze && sight.pids()?.is_empty() {
            return Err(io::Error::other(
                "--freeze: the server's process cannot be seen; give --pid, or run as root",
            ));
        }
        let plan = Plan {
            hold: self.hold.into(),
            flood: self.flood.into(),
            speech: Speech { text: self.send.0.clone(), quiet: QUIET },
            patience: self.patience,
            freeze: self.freeze,
        };
        let mut ordeal = stages::Ordeal::new(&plan, &sight, &door);
        let teller = Teller::new(self.json);
        teller.headline(&format!("{} is put through the outage\n", self.target))?;
        let result = through(&mut ordeal, &teller, &plan);
        teller.bar.finish_and_clear();
        ordeal.facts.gone = sight.is_gone()?;
        if !ordeal.facts.gone {
            result.map_err(too_many)?;
        }
        let outcome = verdict::judge(&ordeal.facts);
        let target = self.target.to_string();
        match self.json {
            true => {
                let all = report::json(outcome, &ordeal.facts, &target, &plan, began.elapsed());
                tell(&format!("{all:#}\n"))?;
            }
            false => tell(&report::verdict(outcome, self.freeze, width()))?,
        }
        Ok(ExitCode::from(outcome.exit_status()))
    }
}

fn through(ordeal: &mut stages::Ordeal<'_>, teller: &Teller, plan: &Plan) -> io::Result<()> {
    teller.stage("one client");
    ordeal.first()?;
    teller.tell("first", &report::first(&ordeal.facts))?;
    if ordeal.facts.manner.is_none() {
        return teller.tell("then", &report::watched(&ordeal.facts.after));
    }
    teller.stage("filling it");
    ordeal.hold()?;
    teller.tell("hold", &report::hold(&ordeal.facts))?;
    teller.stage("a crowd");
    ordeal.flood()?;
    teller.tell("flood", &report::flood(&ordeal.facts))?;
    teller.stage("watching it");
    ordeal.watch()?;
    teller.tell("full", &report::watched(&ordeal.facts.full))?;
    teller.stage("a place becomes free");
    ordeal.free()?;
    teller.tell("free", &report::free(&ordeal.facts, plan))?;
    teller.stage("newcomers");
    ordeal.newcomers()?;
    teller.tell("newcomers", &report::newcomers(&ordeal.facts, plan))?;
    teller.tell("in the end", &report::watched(&ordeal.facts.after))
}

/// The most likely reason for an ordeal that cannot go on.
fn too_many(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            io::Error::other("too many clients for one process: raise `ulimit -n`, or hold fewer")
        }
        _ => error,
    }
}

/// Tells what goes on: a bar where somebody watches, a line for each stage that is over.
struct Teller {
    bar: ProgressBar,
    is_silent: bool,
}

impl Teller {
    fn new(is_silent: bool) -> Self {
        let is_watched = io::stderr().is_terminal() && !is_silent;
        let bar = if is_watched { ProgressBar::new(STAGES) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("## "));
        if is_watched {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, is_silent }
    }

    fn stage(&self, name: &str) {
        self.bar.set_message(name.to_string());
    }

    fn headline(&self, text: &str) -> io::Result<()> {
        if self.is_silent { Ok(()) } else { self.bar.suspend(|| tell(text)) }
    }

    fn tell(&self, name: &str, text: &str) -> io::Result<()> {
        self.bar.inc(1);
        self.headline(&report::line(name, text, width()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_may_have_escapes() {
        assert_eq!(
            unescape("GET / HTTP/1.0\\r\\n\\r\\n").map(|text| text.0),
            Ok(b"GET / HTTP/1.0\r\n\r\n".to_vec())
        );
        assert_eq!(unescape("a\\\\n").map(|text| text.0), Ok(b"a\\n".to_vec()));
        for wrong in ["", "\\", "\\x"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}
