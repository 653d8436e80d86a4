//! `acceptq watch`: a live view of accept queues.

mod chart;
mod history;
mod json;
mod plain;
mod screen;
mod terminal;

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use self::chart::Charset;
use self::history::{History, Snapshot};
use self::screen::View;
use self::terminal::{Command, Terminal};
use crate::list;
use crate::probe::connection::specific;
use crate::probe::{Connection, Counters, Diag, Listener, Owners, Target};
use crate::{NO_LISTENER, print, print_error, seconds};

/// How often owners are read: a scan of `/proc` costs more than a sample, and owners rarely change.
const OWNERS_EVERY: Duration = Duration::from_secs(5);
/// The minimum interval between two scans caused by new listeners.
const OWNERS_AT_MOST: Duration = Duration::from_secs(1);

/// Shows a live view of accept queues: length, drops, dead connections, and a chart of one of them
///
/// DEAD counts queued connections that the client has closed: TCP sockets in CLOSE_WAIT with inode 0 and, if
/// one port is watched, connections that were reset. With SO_REUSEPORT the count is that of all listeners on
/// the address. Arrivals, accepts and overflows a second are those of all TCP listeners of the network
/// namespace: the kernel does not count them for each listener. If stdout is not a terminal, samples are
/// printed as lines of text. Exits with 3 if nothing listens at the target when it starts.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// A port, an address, the path of a Unix socket, or @name of an abstract one [default: all listeners]
    #[arg(value_name = "PORT|PATH")]
    target: Option<Target>,
    /// Seconds between samples
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Exit after this many samples
    #[arg(long, value_name = "SAMPLES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print each sample as a line of JSON
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    seconds(text, &(0.05..=3600.0))
}

impl Watch {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let mut sampler = Sampler { diag: Diag::new()?, target: self.target.clone(), began: Instant::now() };
        if let Some(target) = &self.target
            && target.listeners(&sampler.diag)?.0.is_empty()
        {
            print_error(&format!("nothing listens at {target} in this network namespace"));
            return Ok(ExitCode::from(NO_LISTENER));
        }
        match io::stdout().is_terminal() && !self.json {
            true => self.run_screen(&mut sampler)?,
            false => self.plain(&mut sampler)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn run_screen(&self, sampler: &mut Sampler) -> io::Result<()> {
        let mut view = View {
            title: self.target.as_ref().map_or_else(|| "all".into(), ToString::to_string),
            interval: self.interval,
            charset: Charset::from_locale(),
            selected: 0,
        };
        let mut history = History::default();
        history.add(sampler.sample()?);
        let mut owners = OwnerCache::now(sampler, &history);
        let mut due = Instant::now() + self.interval;
        let mut samples = 1;
        let mut chosen = history.now().and_then(Snapshot::deepest);
        let mut terminal = Terminal::enter()?;
        loop {
            view.selected = history.now().map_or(0, |now| now.position(chosen));
            let (width, height) = terminal.size();
            let notes = |listener: &Listener| owners.of(listener);
            terminal.show(&screen::render(&view, &history, &notes, width, height))?;
            match terminal.next_command(due.saturating_duration_since(Instant::now()))? {
                Some(Command::Quit) => return Ok(()),
                Some(Command::Up) => chosen = history.cookie(view.selected.saturating_sub(1)).or(chosen),
                Some(Command::Down) => chosen = history.cookie(view.selected + 1).or(chosen),
                Some(Command::Redraw) => {}
                None if self.count == Some(samples) => return Ok(()),
                None => {}
            }
            if Instant::now() >= due {
                history.add(sampler.sample()?);
                samples += 1;
                due = Instant::now() + self.interval;
                if owners.is_stale(&history) {
                    owners = OwnerCache::now(sampler, &history);
                }
            }
        }
    }

    fn plain(&self, sampler: &mut Sampler) -> io::Result<()> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        let mut history = History::default();
        let mut samples = 0;
        while !ended.load(Ordering::Relaxed) && self.count.is_none_or(|count| samples < count) {
            if samples > 0 {
                wait(self.interval, &ended);
            }
            history.add(sampler.sample()?);
            samples += 1;
            print(&match self.json {
                true => json::line(&history),
                false => plain::lines(&history, self.target.is_some()),
            })?;
        }
        Ok(())
    }
}

/// The owners, as of the last scan.
struct OwnerCache {
    owners: Owners,
    cookies: HashSet<[u8; 8]>,
    at: Instant,
}

impl OwnerCache {
    fn now(sampler: &Sampler, history: &History) -> Self {
        Self { owners: sampler.owners(history), cookies: cookies(history).collect(), at: Instant::now() }
    }

    /// Returns the columns OWNER and WATCHED; empty for a listener newer than the scan.
    fn of(&self, listener: &Listener) -> (String, String) {
        match self.cookies.contains(&listener.cookie) {
            true => list::owner_and_watched(listener, &self.owners),
            false => Default::default(),
        }
    }

    fn is_stale(&self, history: &History) -> bool {
        let has_new = || cookies(history).any(|cookie| !self.cookies.contains(&cookie));
        self.at.elapsed() >= OWNERS_EVERY || (self.at.elapsed() >= OWNERS_AT_MOST && has_new())
    }
}

fn cookies(history: &History) -> impl Iterator<Item = [u8; 8]> {
    history.now().into_iter().flat_map(|now| now.listeners.iter().map(|listener| listener.cookie))
}

/// Sleeps until the time is over or a signal arrives.
fn wait(time: Duration, ended: &AtomicBool) {
    let due = Instant::now() + time;
    while !ended.load(Ordering::Relaxed) && Instant::now() < due {
        thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
    }
}

#[derive(Debug)]
struct Sampler {
    diag: Diag,
    target: Option<Target>,
    began: Instant,
}

impl Sampler {
    fn sample(&self) -> io::Result<Snapshot> {
        let at = self.began.elapsed();
        let counters = Counters::now();
        let tcp = Listener::inet(&self.diag, None)?;
        let queued_tcp = tcp.iter().map(|listener| u64::from(listener.queued)).sum();
        let mut listeners = match &self.target {
            Some(target) => target.listeners(&self.diag)?.0,
            None => tcp.iter().cloned().chain(Listener::unix(&self.diag)?).collect(),
        };
        listeners.sort_by_cached_key(list::order);
        let port = self.target.as_ref().and_then(Target::port);
        let waiting: Vec<Connection> = match port {
            Some(port) => {
                Connection::of_port(&self.diag, port)?.into_iter().filter(Connection::is_unowned).collect()
            }
            None => Connection::unowned_close_wait(&self.diag)?,
        };
        let specific = specific(tcp.iter());
        let (mut dead, mut oldest) = (HashMap::new(), HashMap::new());
        let mut groups = HashMap::new();
        for listener in &listeners {
            let count = match listener.socket() {
                None => listener.closed_clients(),
                Some(address) => {
                    // Once per address, not once per listener.
                    let (count, age) = *groups.entry(address).or_insert_with(|| {
                        let own = waiting.iter().filter(|one| one.arrived_at(address, &specific));
                        let depth = listeners.iter().filter(|other| other.socket() == Some(address));
                        group(own, depth.map(|other| other.queued as usize).sum(), port.is_some())
                    });
                    oldest.extend(age.filter(|_| listener.queued > 0).map(|age| (listener.cookie, age)));
                    Some(count)
                }
            };
            dead.extend(count.map(|count| (listener.cookie, count)));
        }
        Ok(Snapshot { at, listeners, queued_tcp, counters, dead, oldest })
    }

    fn owners(&self, history: &History) -> Owners {
        let listeners = history.now().map_or(&[][..], |now| &now.listeners);
        Owners::of(&listeners.iter().map(|listener| listener.inode).collect::<HashSet<u64>>())
    }
}

/// Returns the number of dead connections queued at an address, and the age of the oldest queued one.
///
/// If all connections of the port are listed, the missing ones were reset: they stay in the queue, but
/// sock_diag does not list them.
fn group<'a>(
    waiting: impl Iterator<Item = &'a Connection>,
    queued: usize,
    all_are_listed: bool,
) -> (usize, Option<Duration>) {
    let (mut listed, mut dead, mut oldest) = (0, 0, None);
    for one in waiting {
        listed += 1;
        dead += usize::from(one.close_wait);
        oldest = oldest.max(one.age);
    }
    match all_are_listed {
        true => (dead + queued.saturating_sub(listed), oldest),
        false => (dead, None),
    }
}
