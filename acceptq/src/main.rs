//! `acceptq`: inspects the accept queues of this machine and diagnoses why connections wait in them.
// `println!` and `eprintln!` panic on a closed pipe; the functions below do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod probe;
mod format;
mod list;
mod doctor;
mod watch;
mod export;
mod stress;
mod demo;
mod manual;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::probe::Namespace;

/// Inspects the accept queues of any server from outside
#[derive(Parser, Debug)]
#[command(name = "acceptq", version, after_help = START)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Run in this network namespace: its name in /run/netns, or a process in it
    #[arg(long, value_name = "NAME|PID", global = true)]
    netns: Option<String>,
}

const START: &str = "\
Clients hang, or are refused? Run this as root; it changes nothing:
  acceptq doctor 8080    what is wrong at port 8080, and the next command
  acceptq doctor         likewise, of every listening socket";

/// The subcommands, one module each.
#[derive(Subcommand, Debug)]
enum Command {
    List(list::List),
    Watch(watch::Watch),
    Doctor(doctor::Doctor),
    Export(export::Export),
    #[command(name = "ordeal")]
    Stress(stress::Stress),
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoServer(demo::DemoServer),
    #[command(hide = true)]
    Guard(stress::guard::Guard),
    #[command(hide = true)]
    Manual(manual::Manual),
}

/// The exit status when nothing listens at the target.
const NO_LISTENER: u8 = 3;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(status) => status,
        Err(error) => {
            print_error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> io::Result<ExitCode> {
    // Prometheus connects from this namespace, even if another one is observed.
    let endpoint = match &cli.command {
        Command::Export(export) => export.bind()?,
        _ => None,
    };
    // Only this thread enters the namespace; threads that it starts later inherit it.
    if let Some(name) = &cli.netns {
        Namespace::of(name)?.enter()?;
    }
    match cli.command {
        Command::List(list) => list.run(),
        Command::Watch(watch) => ignore_broken_pipe(watch.run()),
        Command::Doctor(doctor) => doctor.run(cli.netns),
        Command::Export(export) => export.run(endpoint),
        Command::Stress(stress) => stress.run(),
        Command::Demo(demo) => demo.run(),
        Command::DemoServer(server) => server.run(),
        Command::Guard(guard) => guard.run(),
        Command::Manual(manual) => manual.run(),
    }
}

/// Treats a closed pipe as success: the reader, such as `head`, has read enough.
fn ignore_broken_pipe(outcome: io::Result<ExitCode>) -> io::Result<ExitCode> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}

/// Prints to stdout. Returns an error if the pipe is closed.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints to stdout and ignores a closed pipe, for commands whose exit status carries the result as well.
fn print_ignoring_epipe(text: &str) -> io::Result<()> {
    match print(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Prints to stderr and ignores errors.
fn eprint(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Prints an error message to stderr: on one line, unless it is a terminal.
fn print_error(text: &str) {
    match io::stderr().is_terminal() {
        true => eprint(&format::wrap(text, "acceptq: ", "  ", width())),
        false => eprint(&format!("acceptq: {text}\n")),
    }
}

/// Returns whether this is root, which may still lack privileges, as in a container.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the remedy for what is not visible to this user.
fn remedy() -> &'static str {
    match is_root() {
        true => "Here root is confined by its capabilities or a security module.",
        false => "Run this as root.",
    }
}

fn seconds(text: &str, allowed: &RangeInclusive<f64>) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds, such as 0.5".to_string())?;
    if !allowed.contains(&seconds) {
        return Err(format!("must be between {} and {} seconds", allowed.start(), allowed.end()));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Returns the maximum width of a line of output. In a pipe to a pager stderr is the terminal.
fn width() -> usize {
    let columns = match io::stdout().is_terminal() || io::stderr().is_terminal() {
        true => crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns)),
        false => 100,
    };
    columns.clamp(40, 110)
}
