//! `acceptq ordeal`: a stress test of the accept loop of a running server.

pub(crate) mod client;
mod freeze;
pub(crate) mod guard;
mod report;
mod observer;
mod stages;
mod verdict;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::client::Request;
use self::observer::Observer;
use self::stages::Config;
use crate::probe::Target;
use crate::{NO_LISTENER, print_error, print_ignoring_epipe, seconds, width};

/// The delay before a request, in which a server that sends data first, or refuses, can do so.
const SILENCE: Duration = Duration::from_millis(200);
const STAGES: u64 = 6;

/// Stress-tests the accept loop of a running server: does it strand or spin at its limit?
///
/// Clients fill the server up to its limit (or up to --hold) and stay connected. Many more connect at once,
/// and half of them disconnect. Then one of the held clients disconnects and new clients connect, which the
/// server must answer or refuse. Use it only on servers under test: other clients are not served meanwhile,
/// and a stranded server must be restarted. It asks first (--yes: it does not), and refuses to test a server
/// that has connections of other clients.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub(crate) struct Stress {
    /// A port, an address (127.0.0.1:80), the path of a Unix socket, or @name of an abstract one
    #[arg(value_name = "PORT|PATH")]
    target: Target,
    /// Connections to hold open in search of the limit: more than the server allows
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    hold: u16,
    /// Connections to open at once; fewer if the accept queue is shorter
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(2..))]
    flood: u16,
    /// The request, sent 200 ms after connecting; \n, \r, \t, \0 and \\ are escapes
    #[arg(long, value_name = "TEXT", default_value = "PING\\n", value_parser = unescape)]
    send: Payload,
    /// Seconds that a client waits for an answer
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = patience)]
    patience: Duration,
    /// The server's process, if it does not own the listener or is not visible
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Do not ask before the test
    #[arg(long, short)]
    yes: bool,
    /// Stop the server (SIGSTOP) while clients connect, so that one wakeup reports all of them
    #[arg(long)]
    freeze: bool,
    /// Allow addresses other than loopback; test only your own servers
    #[arg(long)]
    anywhere: bool,
    /// Print JSON; fields that are not visible are null
    #[arg(long)]
    json: bool,
}

/// The bytes of the request. A type of its own, because clap treats `Vec` as repeated values.
#[derive(Clone, Debug)]
struct Payload(Vec<u8>);

const EXIT_STATUSES: &str = "\
Exit status by verdict:
    0  waits well, refuses well, or no limit reached
   10  strands: below its limit the server leaves connections in the queue
   13  spins: at its limit the server wakes again and again without accepting (counted, as root)
   16  busy: at its limit a thread keeps running; its system calls were not counted
   20  undetermined
    1  acceptq failed
    2  invalid arguments
    3  nothing listens at the target";

fn patience(text: &str) -> Result<Duration, String> {
    seconds(text, &(0.5..=60.0))
}

fn unescape(text: &str) -> Result<Payload, String> {
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
                _ => return Err("a backslash must be followed by n, r, t, 0 or another backslash".into()),
            },
            c => c,
        };
        out.extend(c.to_string().into_bytes());
    }
    if out.is_empty() {
        return Err("must not be empty".into());
    }
    Ok(Payload(out))
}

impl Stress {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let began = Instant::now();
        let Some((observer, endpoint)) = Observer::of(&self.target, self.pid, self.anywhere)? else {
            print_error(&format!("nothing listens at {} in this network namespace", self.target));
            return Ok(ExitCode::from(NO_LISTENER));
        };
        if self.freeze && observer.pids()?.is_empty() {
            return Err(io::Error::other(
                "--freeze: the server's process is not visible; set --pid, or run this as root",
            ));
        }
        let config = Config {
            hold: self.hold.into(),
            flood: self.flood.into(),
            request: Request { payload: self.send.0.clone(), delay: SILENCE },
            patience: self.patience,
            freeze: self.freeze,
        };
        self.confirm(&observer)?;
        let mut scenario = stages::Scenario::new(&config, &observer, &endpoint);
        let progress = Progress::new(self.json);
        progress.headline(&format!("stress-testing {}\n", self.target))?;
        let result = run_stages(&mut scenario, &progress, &config);
        progress.bar.finish_and_clear();
        scenario.facts.gone = observer.is_closed()?;
        if !scenario.facts.gone {
            result.map_err(out_of_descriptors)?;
        }
        let verdict = verdict::evaluate(&scenario.facts);
        let target = self.target.to_string();
        match self.json {
            true => {
                let all = report::json(verdict, &scenario.facts, &target, &config, began.elapsed());
                print_ignoring_epipe(&format!("{all}\n"))?;
            }
            false => print_ignoring_epipe(&report::verdict(verdict, &scenario.facts, self.freeze, width()))?,
        }
        Ok(ExitCode::from(verdict.exit_status()))
    }
}

impl Stress {
    /// Refuses to disturb other clients, and asks before the test.
    fn confirm(&self, observer: &Observer) -> io::Result<()> {
        let others = observer.connections()?;
        if others > 0 {
            let count = crate::format::plural(others, "connection");
            return Err(io::Error::other(format!(
                "{count} of other clients at {}: test a server without clients; ss -tanp shows them",
                self.target
            )));
        }
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(io::Error::other("this disturbs the server: confirm with --yes"));
        }
        crate::eprint(&format!(
            "This holds up to {} connections at {}, opens {} more at once, and may leave the server stranded: it \
             must then be restarted. Continue? [y/N] ",
            self.hold,
            self.target,
            usize::from(self.flood) * if self.freeze { 1 } else { stages::BURSTS },
        ));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(io::Error::other("not confirmed")),
        }
    }
}

fn run_stages(scenario: &mut stages::Scenario<'_>, progress: &Progress, config: &Config) -> io::Result<()> {
    progress.stage("one client");
    scenario.first()?;
    progress.finish("first", &report::first(&scenario.facts))?;
    if scenario.facts.behavior.is_none() {
        return progress.finish("state", &report::watched(&scenario.facts.after));
    }
    progress.stage("filling to the limit");
    scenario.hold()?;
    progress.finish("hold", &report::hold(&scenario.facts))?;
    progress.stage("flood");
    scenario.flood()?;
    progress.finish("flood", &report::flood(&scenario.facts))?;
    progress.stage("observing");
    scenario.watch()?;
    progress.finish("full", &report::watched(&scenario.facts.full))?;
    progress.stage("freeing a connection");
    scenario.free()?;
    progress.finish("free", &report::free(&scenario.facts, config))?;
    progress.stage("new connections");
    scenario.new_connections()?;
    progress.finish("new", &report::new_connections(&scenario.facts, config))?;
    progress.finish("end", &report::watched(&scenario.facts.after))
}

/// Adds the remedy to EMFILE.
fn out_of_descriptors(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            io::Error::other("out of file descriptors for clients: raise `ulimit -n`, or lower --hold")
        }
        _ => error,
    }
}

/// Shows the progress: a bar on a terminal, and a line for each completed stage.
struct Progress {
    bar: ProgressBar,
    is_quiet: bool,
}

impl Progress {
    fn new(is_quiet: bool) -> Self {
        let is_interactive = io::stderr().is_terminal() && !is_quiet;
        let bar = if is_interactive { ProgressBar::new(STAGES) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("## "));
        if is_interactive {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, is_quiet }
    }

    fn stage(&self, name: &str) {
        self.bar.set_message(name.to_string());
    }

    fn headline(&self, text: &str) -> io::Result<()> {
        if self.is_quiet { Ok(()) } else { self.bar.suspend(|| print_ignoring_epipe(text)) }
    }

    fn finish(&self, name: &str, text: &str) -> io::Result<()> {
        self.bar.inc(1);
        self.headline(&report::line(name, text, width()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescape_handles_escapes() {
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
