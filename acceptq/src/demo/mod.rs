//! `acceptq demo`: shows a stranded server and the fix, for readers who do not know the fault.

mod child;
mod server;

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;

use self::child::{CLIENTS, Queue, Server};
pub(crate) use self::server::DemoServer;
use self::server::Loop;
use crate::format::wrap;
use crate::stress::client::Outcome;
use crate::{print_error, print_ignoring_epipe};

const WIDTH: usize = 78;
/// The width of a drawn queue.
const CELLS: usize = 44;
const NEW_CONNECTIONS: usize = 3;
/// Exit statuses of `acceptq doctor`.
const HEALTHY: i32 = 0;
const STRANDED: i32 = 10;
const AT_LIMIT: i32 = 11;

/// Shows a server that strands connections, and the fix, in about a minute
///
/// Starts a faulty server on loopback, puts it under load, runs the doctor on it, and repeats this with a
/// server that uses epoll-acceptor. Exits with 0 if everything happened as described.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Omit the pauses for reading
    #[arg(long)]
    fast: bool,
}

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Title,
    Bad,
    Good,
    Command,
}

impl Demo {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        self.title("1. A server, and a fault in it")?;
        self.paragraph(
            "New connections wait in the listening socket's accept queue until the server accepts them. \
             This server registers its listener edge-triggered (one event per arrival) and serves one \
             client at a time; a real one would serve ten thousand.",
        )?;
        self.block(ACCEPT_LOOP)?;
        let as_expected = self.outage()? & self.fixed()?;
        self.title("3. The difference")?;
        self.paragraph(
            "Both loops got one event. The first one went back to epoll_wait before the queue was empty. \
             The second one remembered that connections were left, disarmed the listener at its limit, and \
             resumed when a client disconnected. `acceptq doctor PORT` diagnoses any server on this \
             machine, and `acceptq ordeal PORT` runs this test against it.",
        )?;
        if !as_expected {
            print_error("the demo did not run as described: the machine may be overloaded; run it again");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Shows the faulty loop. Returns whether it behaved as described.
    fn outage(&self) -> io::Result<bool> {
        let mut server = Server::start(Loop::Faulty)?;
        self.paragraph(&format!("It listens on port {}, as process {}.", server.port, server.pid()))?;
        let mut held = self.first(&mut server)?;
        let queue = server.connect_while_busy(&mut held)?;
        self.paragraph(&format!("While it is busy with this client, {CLIENTS} more connect at once:"))?;
        self.queue(queue)?;
        let queue = server.resume()?;
        self.paragraph(
            "Then it accepts the first of them, is at its limit, closes it, and returns to epoll_wait. The \
             event for the other connections has been consumed, and no further one follows:",
        )?;
        self.queue(queue)?;
        let queue = server.disconnect_half()?;
        self.paragraph(
            "Half of the waiting clients give up. The kernel keeps their connections in the queue:",
        )?;
        self.queue(queue)?;
        drop(held);
        self.paragraph(
            "The first client disconnects. The server is idle and below its limit. New clients connect:",
        )?;
        let answered = self.new_connections(&mut server)?;
        self.paragraph(
            "Each arrival woke the server once: it accepted the oldest connection in the queue and closed \
             the next one. It cannot catch up. It logs nothing and uses no CPU time. The doctor's \
             diagnosis:",
        )?;
        let code = self.doctor(&server)?;
        Ok(answered == 0 && code == Some(STRANDED))
    }

    /// Shows epoll-acceptor under the same load. Returns whether it behaved as described.
    fn fixed(&self) -> io::Result<bool> {
        self.title("2. The same load with epoll-acceptor")?;
        let mut server = Server::start(Loop::Acceptor)?;
        self.paragraph(&format!(
            "The same service, one client at a time, also edge-triggered, with an acceptor of the crate \
             epoll-acceptor. It listens on port {}.",
            server.port
        ))?;
        let mut held = self.first(&mut server)?;
        server.connect_while_busy(&mut held)?;
        server.resume()?;
        let queue = server.disconnect_half()?;
        self.paragraph(&format!(
            "{CLIENTS} clients connect at once, and half of them give up. At its limit the server lets them \
             wait:"
        ))?;
        self.queue(queue)?;
        let full = self.doctor(&server)?;
        drop(held);
        let queue = server.wait_until_served()?;
        self.paragraph(&format!(
            "The first client disconnects. That wakes the server, and it accepts the queued connections \
             one by one: {} were answered, {} refused, and the dead ones are closed:",
            server.answered, server.refused
        ))?;
        self.queue(queue)?;
        self.paragraph("New clients connect:")?;
        let answered = self.new_connections(&mut server)?;
        let code = self.doctor_with(&server.port.to_string(), || server.doctor_under_load())?;
        let all_answered = answered == NEW_CONNECTIONS && server.answered == CLIENTS / 2;
        Ok(all_answered && full == Some(AT_LIMIT) && code == Some(HEALTHY))
    }

    /// Connects a client that is answered and stays connected.
    fn first(&self, server: &mut Server) -> io::Result<crate::stress::client::Client> {
        let (client, outcome) = server.request(b"hello\n", Duration::from_secs(20))?;
        if outcome != Outcome::Answered {
            return Err(io::Error::other("the first client was not answered"));
        }
        self.block(
            "  client       > hello\n  server       < hello        (stays connected: limit reached)\n",
        )?;
        Ok(client)
    }

    /// Connects new clients. Returns how many of them were answered.
    fn new_connections(&self, server: &mut Server) -> io::Result<usize> {
        // A server that answers needs a thousandth of this.
        let patience = Duration::from_millis(if self.fast { 700 } else { 1000 });
        let mut answered = 0;
        let mut stay = Vec::new();
        for number in 1..=NEW_CONNECTIONS {
            let (client, outcome) = server.request(b"hello\n", patience)?;
            let (style, text) = match outcome {
                Outcome::Answered => (Style::Good, "connected, answered"),
                Outcome::Refused => (Style::Bad, "connected, closed without an answer"),
                Outcome::Pending => (Style::Bad, "connected, no answer"),
            };
            answered += usize::from(outcome == Outcome::Answered);
            self.write_styled(style, &format!("  client {number}     > hello        {text}\n"))?;
            if outcome == Outcome::Pending {
                stay.push(client);
            }
        }
        self.write_styled(Style::Plain, "\n")?;
        Ok(answered)
    }

    fn doctor(&self, server: &Server) -> io::Result<Option<i32>> {
        self.doctor_with(&server.port.to_string(), || server.doctor())
    }

    fn doctor_with(
        &self,
        port: &str,
        run: impl FnOnce() -> io::Result<Option<i32>>,
    ) -> io::Result<Option<i32>> {
        self.write_styled(Style::Command, &format!("$ acceptq doctor {port}\n"))?;
        let code = run()?;
        self.write_styled(Style::Plain, "\n")?;
        self.pause(5000);
        Ok(code)
    }

    /// Draws the queue: `[xxxx####.....]`.
    fn queue(&self, queue: Queue) -> io::Result<()> {
        let cells = |count: usize| (count * CELLS).div_ceil(queue.capacity.max(1)).min(CELLS);
        // Not to scale if the capacity exceeds the drawing, as that of the default backlog does.
        let scaled = queue.capacity <= CELLS;
        let (waiting, dead) = match scaled {
            true => (cells(queue.queued), cells(queue.dead)),
            false => (queue.queued.min(CELLS), queue.dead.min(CELLS)),
        };
        let dead = dead.min(waiting);
        let picture =
            format!("{}{}{}", "x".repeat(dead), "#".repeat(waiting - dead), ".".repeat(CELLS - waiting));
        let legend = match queue.dead {
            0 => format!("{} waiting", queue.queued),
            dead => format!("{} waiting: {dead} dead (x), {} alive (#)", queue.queued, waiting - dead),
        };
        self.write_styled(Style::Plain, &format!("  queue [{picture}]\n        {legend}\n\n"))?;
        self.pause(2000);
        Ok(())
    }

    fn title(&self, text: &str) -> io::Result<()> {
        self.write_styled(Style::Title, &format!("{text}\n\n"))
    }

    /// Prints a paragraph and pauses for reading.
    fn paragraph(&self, text: &str) -> io::Result<()> {
        self.write_styled(Style::Plain, &format!("{}\n", wrap(text, "", "", WIDTH)))?;
        self.pause(u64::try_from(text.len()).unwrap_or(0) * 12);
        Ok(())
    }

    fn block(&self, text: &str) -> io::Result<()> {
        self.write_styled(Style::Plain, &format!("{text}\n"))?;
        self.pause(2000);
        Ok(())
    }

    fn write_styled(&self, style: Style, text: &str) -> io::Result<()> {
        let color = match style {
            _ if !has_colors() => return print_ignoring_epipe(text),
            Style::Plain => return print_ignoring_epipe(text),
            Style::Title => "1",
            Style::Bad => "31",
            Style::Good => "32",
            Style::Command => "36",
        };
        let (line, end) = text.split_at(text.trim_end().len());
        print_ignoring_epipe(&format!("\x1b[{color}m{line}\x1b[0m{end}"))
    }

    fn pause(&self, ms: u64) {
        if !self.fast {
            thread::sleep(Duration::from_millis(ms));
        }
    }
}

/// Returns whether to use colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
fn has_colors() -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_unwanted && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

const ACCEPT_LOOP: &str = "    on an event of the listener:
        while accept returns a connection:
            if the server is at its limit:
                close it
                return                  <- the fault: should be `continue`
            serve it
";
