//! `acceptq demo`: the story of the outage, for someone who has never heard of it.

mod play;
mod server;

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;

use self::play::{CROWD, Queue, Server};
pub(crate) use self::server::DemoServer;
use self::server::Loop;
use crate::ordeal::client::Fate;
use crate::words::wrap;
use crate::{complain, tell};

/// The story is told in lines of at most this.
const WIDTH: usize = 78;
/// How wide a queue is drawn.
const CELLS: usize = 44;
const NEWCOMERS: usize = 3;
/// As `acceptq doctor` ends.
const HEALTHY: i32 = 0;
const STRANDED: i32 = 10;
const BACKPRESSURE: i32 = 11;

/// Shows the outage, and its cure, in about a minute.
///
/// Starts a faulty server of its own on loopback and floods it, asks the doctor, and does the same
/// to a server on
/// this crate's acceptor. Exits with 0 if all went as told.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Without the pauses for reading
    #[arg(long)]
    fast: bool,
}

/// How something is said.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Title,
    Bad,
    Good,
    Command,
}

impl Demo {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        self.title("1. A server, and a fault in it")?;
        self.tell(
            "Clients that connect wait in the listening socket's accept queue until the server takes them. \
             This server wants to be told of arrivals once (edge-triggered), and serves one client at a \
             time; in earnest it would be ten thousand.",
        )?;
        self.show(LOOP)?;
        let as_told = self.outage()? & self.cure()?;
        self.title("3. What made the difference")?;
        self.tell(
            "Both loops were told once. The first went to sleep without having emptied the queue. The \
             second knew that it had not, kept silent while it was full, and took up the queue again when a \
             place was free. Of any server here: `acceptq doctor PORT` says what is the matter with it, and \
             `acceptq ordeal PORT` puts it through the same.",
        )?;
        if !as_told {
            complain("it did not go as told");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The faulty loop. Whether it went as told.
    fn outage(&self) -> io::Result<bool> {
        let mut server = Server::start(Loop::Faulty)?;
        self.tell(&format!("It listens on port {}, as process {}.", server.port, server.pid()))?;
        let mut held = self.first(&mut server)?;
        let queue = server.crowd_while_busy(&mut held)?;
        self.tell(&format!("While it is busy with this client, {CROWD} others connect at once:"))?;
        self.queue(queue)?;
        let queue = server.go_on()?;
        self.tell(
            "Now it looks after them. It takes the first, is full, closes it, and goes back to its wait. It \
             has been told of the others already, so it will not be told again:",
        )?;
        self.queue(queue)?;
        let queue = server.half_quit()?;
        self.tell("Half of those who wait give up. The kernel keeps them for a server that does not come:")?;
        self.queue(queue)?;
        drop(held);
        self.tell("The first client leaves. The server is idle, and has room. Newcomers:")?;
        let answered = self.newcomers(&mut server)?;
        self.tell(
            "Each arrival woke it, to take the oldest in the queue, and to close the next. It cannot catch \
             up. Its log is empty, and so is its share of the processor. What does the doctor say?",
        )?;
        let code = self.doctor(&server)?;
        Ok(answered == 0 && code == Some(STRANDED))
    }

    /// The same with this crate's acceptor.
    fn cure(&self) -> io::Result<bool> {
        self.title("2. The same flood, and an acceptor that keeps count")?;
        let mut server = Server::start(Loop::Acceptor)?;
        self.tell(&format!(
            "The same service, one client at a time, edge-triggered as well, on an acceptor of the crate \
             epoll-acceptor. It listens on port {}.",
            server.port
        ))?;
        let mut held = self.first(&mut server)?;
        server.crowd_while_busy(&mut held)?;
        server.go_on()?;
        let queue = server.half_quit()?;
        self.tell(&format!(
            "{CROWD} connect at once, and half of them give up. It is full, and lets them wait:"
        ))?;
        self.queue(queue)?;
        let full = self.doctor(&server)?;
        drop(held);
        let queue = server.until_all_served()?;
        self.tell(&format!(
            "The first client leaves. That wakes it, and it takes all who wait, one after the other: {} were \
             answered, {} refused, and the dead are buried:",
            server.crowd_answered, server.crowd_refused
        ))?;
        self.queue(queue)?;
        self.tell("Newcomers:")?;
        let answered = self.newcomers(&mut server)?;
        let code = self.doctor(&server)?;
        let all_answered = answered == NEWCOMERS && server.crowd_answered == CROWD / 2;
        Ok(all_answered && full == Some(BACKPRESSURE) && code == Some(HEALTHY))
    }

    /// A client who is answered, and stays.
    fn first(&self, server: &mut Server) -> io::Result<crate::ordeal::client::Client> {
        let (client, fate) = server.visit(b"hello\n", Duration::from_secs(20))?;
        if fate != Fate::Answered {
            return Err(io::Error::other("the first client was not answered"));
        }
        self.show("  client       > hello\n  server       < hello        it stays: the server is full\n")?;
        Ok(client)
    }

    /// How many of them were answered.
    fn newcomers(&self, server: &mut Server) -> io::Result<usize> {
        // Where one is answered that takes a thousandth of this.
        let patience = Duration::from_millis(if self.fast { 700 } else { 1000 });
        let mut answered = 0;
        let mut stay = Vec::new();
        for number in 1..=NEWCOMERS {
            let (client, fate) = server.visit(b"hello\n", patience)?;
            let (tone, text) = match fate {
                Fate::Answered => (Tone::Good, "connected, and answered"),
                Fate::Refused => (Tone::Bad, "connected, and closed without an answer"),
                Fate::Waits => (Tone::Bad, "connected, and no answer"),
            };
            answered += usize::from(fate == Fate::Answered);
            self.speak(tone, &format!("  newcomer {number}   > hello        {text}\n"))?;
            if fate == Fate::Waits {
                stay.push(client);
            }
        }
        self.speak(Tone::Plain, "\n")?;
        Ok(answered)
    }

    fn doctor(&self, server: &Server) -> io::Result<Option<i32>> {
        self.speak(Tone::Command, &format!("$ acceptq doctor {}\n", server.port))?;
        let code = server.doctor()?;
        self.speak(Tone::Plain, "\n")?;
        self.pause(5000);
        Ok(code)
    }

    /// `[xxxx####.....]`.
    fn queue(&self, queue: Queue) -> io::Result<()> {
        let cells = |count: usize| (count * CELLS).div_ceil(queue.capacity.max(1)).min(CELLS);
        // The default backlog is far longer than this crowd: then the end of the queue is not drawn to scale.
        let scaled = queue.capacity <= CELLS;
        let (waiting, dead) = match scaled {
            true => (cells(queue.queued), cells(queue.dead)),
            false => (queue.queued.min(CELLS), queue.dead.min(CELLS)),
        };
        let dead = dead.min(waiting);
        let picture =
            format!("{}{}{}", "x".repeat(dead), "#".repeat(waiting - dead), ".".repeat(CELLS - waiting));
        let legend = match queue.dead {
            0 => format!("{} wait", queue.queued),
            dead => format!("{} wait: {dead} dead (x), {} alive (#)", queue.queued, waiting - dead),
        };
        self.speak(Tone::Plain, &format!("  queue [{picture}]\n        {legend}\n\n"))?;
        self.pause(2000);
        Ok(())
    }

    fn title(&self, text: &str) -> io::Result<()> {
        self.speak(Tone::Title, &format!("{text}\n\n"))
    }

    /// A paragraph, and the time to read it.
    fn tell(&self, text: &str) -> io::Result<()> {
        self.speak(Tone::Plain, &format!("{}\n", wrap(text, "", "", WIDTH)))?;
        self.pause(u64::try_from(text.len()).unwrap_or(0) * 12);
        Ok(())
    }

    fn show(&self, text: &str) -> io::Result<()> {
        self.speak(Tone::Plain, &format!("{text}\n"))?;
        self.pause(2000);
        Ok(())
    }

    fn speak(&self, tone: Tone, text: &str) -> io::Result<()> {
        let color = match tone {
            _ if !has_colors() => return tell(text),
            Tone::Plain => return tell(text),
            Tone::Title => "1",
            Tone::Bad => "31",
            Tone::Good => "32",
            Tone::Command => "36",
        };
        let (line, end) = text.split_at(text.trim_end().len());
        tell(&format!("\x1b[{color}m{line}\x1b[0m{end}"))
    }

    fn pause(&self, ms: u64) {
        if !self.fast {
            thread::sleep(Duration::from_millis(ms));
        }
    }
}

/// On a terminal, unless it is asked not to (<https://no-color.org>).
fn has_colors() -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_unwanted && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

const LOOP: &str = "    on an event of the listener:
        while accept gives a connection:
            if the server is full:
                close it
                return                  <- the fault; `continue` is right
            serve it
";
