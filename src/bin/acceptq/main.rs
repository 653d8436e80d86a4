//! `acceptq`: what waits in the accept queues of this machine, who lets it wait, and why.

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

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::List(list) => list.run(),
        Command::Watch(watch) => watch.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Ordeal(ordeal) => ordeal.run(),
        Command::Demo(demo) => demo.run(),
        Command::DemoServer(server) => server.run(),
    };
    match outcome {
        Ok(status) => status,
        // Whoever read this has read enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acceptq: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout; unlike `println!` it returns an error when nobody reads any more.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
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
