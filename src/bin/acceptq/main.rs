//! `acceptq`: what waits in the accept queues of this machine, who lets it wait, and why.
// These panic where nobody reads; `say` and `complain` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod see;
mod words;
mod list;
mod doctor;
mod watch;
mod ordeal;
mod demo;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks at accept queues from outside: any server's, in any language.
#[derive(Parser, Debug)]
#[command(name = "acceptq", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One module each.
#[derive(Subcommand, Debug)]
enum Command {
    List(list::List),
    Watch(watch::Watch),
    Doctor(doctor::Doctor),
    Ordeal(ordeal::Ordeal),
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoServer(demo::DemoServer),
}

/// The exit status when nothing listens at what was asked about.
const NO_LISTENER: u8 = 3;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::List(list) => list.run(),
        Command::Watch(watch) => unless_unread(watch.run()),
        Command::Doctor(doctor) => doctor.run(),
        Command::Ordeal(ordeal) => ordeal.run(),
        Command::Demo(demo) => demo.run(),
        Command::DemoServer(server) => server.run(),
    };
    match outcome {
        Ok(status) => status,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Whoever read this has read enough, as `head` does.
fn unless_unread(outcome: io::Result<ExitCode>) -> io::Result<ExitCode> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}

/// Prints to stdout; unlike `println!` it returns an error when nobody reads any more.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints what the exit status tells as well: where nobody reads any more the status still counts.
fn tell(text: &str) -> io::Result<()> {
    match say(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Prints to stderr as it is. Where nobody reads there is nobody to be told of that, either.
fn aside(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Says on stderr what went wrong.
fn complain(text: &str) {
    aside(&format!("acceptq: {text}\n"));
}

/// How wide the text may be.
fn width() -> usize {
    use std::io::IsTerminal;
    let columns = match io::stdout().is_terminal() {
        true => crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns)),
        false => 100,
    };
    columns.clamp(40, 110)
}
