//! `acceptq watch`: accept queues live.

mod chart;
mod history;
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

use self::chart::Ink;
use self::history::{History, Moment};
use self::screen::View;
use self::terminal::{Terminal, Wish};
use crate::list;
use crate::say;
use crate::see::waiting::specific;
use crate::see::{Counters, Diag, Listener, Owners, Target, Waiting};

/// Who owns what is looked up this often: it costs more, and changes less, than a queue.
const OWNERS_EVERY: Duration = Duration::from_secs(5);
/// The same for a listener that is new.
const OWNERS_AT_MOST: Duration = Duration::from_secs(1);

/// Shows accept queues live: depth, drops, dead connections, and a chart of one of them over time.
///
/// DEAD counts those who wait and whose client has gone: for TCP the sockets in CLOSE_WAIT that no process
/// has and, where one port is watched, those that were reset. With SO_REUSEPORT they are those of all
/// listeners on the address. Where stdout is no terminal, each look is printed as a line.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Only this: a port, an address, a path, @name
    #[arg(value_name = "PORT|PATH")]
    target: Option<Target>,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// End after so many looks
    #[arg(long, value_name = "LOOKS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted, such as 0.5".to_string())?;
    if !(0.05..=3600.0).contains(&seconds) {
        return Err("between 0.05 and 3600 seconds, please".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Watch {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let mut looker = Looker { diag: Diag::new()?, target: self.target.clone(), began: Instant::now() };
        match io::stdout().is_terminal() {
            true => self.live(&mut looker)?,
            false => self.plain(&mut looker)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn live(&self, looker: &mut Looker) -> io::Result<()> {
        let mut view = View {
            title: self.target.as_ref().map_or_else(|| "all".into(), ToString::to_string),
            interval: self.interval,
            ink: Ink::of_the_locale(),
            selected: 0,
        };
        let mut history = History::default();
        history.add(looker.look()?);
        let mut owners = Known::now(looker, &history);
        let mut due = Instant::now() + self.interval;
        let mut looks = 1;
        let mut chosen = history.now().and_then(Moment::deepest);
        let mut terminal = Terminal::take()?;
        loop {
            view.selected = history.now().map_or(0, |now| now.position(chosen));
            let (width, height) = terminal.size();
            let notes = |listener: &Listener| owners.of(listener);
            terminal.show(&screen::render(&view, &history, &notes, width, height))?;
            match terminal.wish(due.saturating_duration_since(Instant::now()))? {
                Some(Wish::Quit) => return Ok(()),
                Some(Wish::Up) => chosen = history.cookie(view.selected.saturating_sub(1)).or(chosen),
                Some(Wish::Down) => chosen = history.cookie(view.selected + 1).or(chosen),
                Some(Wish::Redraw) => {}
                None if self.count == Some(looks) => return Ok(()),
                None => {}
            }
            if Instant::now() >= due {
                history.add(looker.look()?);
                looks += 1;
                due = Instant::now() + self.interval;
                if owners.are_old(&history) {
                    owners = Known::now(looker, &history);
                }
            }
        }
    }

    fn plain(&self, looker: &mut Looker) -> io::Result<()> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        let mut history = History::default();
        let mut looks = 0;
        while !ended.load(Ordering::Relaxed) && self.count.is_none_or(|count| looks < count) {
            if looks > 0 {
                wait(self.interval, &ended);
            }
            history.add(looker.look()?);
            looks += 1;
            say(&plain::lines(&history, self.target.is_some()))?;
        }
        Ok(())
    }
}

/// Who owns what, as it was when that was last looked up.
struct Known {
    owners: Owners,
    cookies: HashSet<[u8; 8]>,
    at: Instant,
}

impl Known {
    fn now(looker: &Looker, history: &History) -> Self {
        Self { owners: looker.owners(history), cookies: cookies(history).collect(), at: Instant::now() }
    }

    /// In words; blank for a listener that has come since.
    fn of(&self, listener: &Listener) -> (String, String) {
        match self.cookies.contains(&listener.cookie) {
            true => list::owner_and_watched(listener, &self.owners),
            false => Default::default(),
        }
    }

    fn are_old(&self, history: &History) -> bool {
        let has_new = || cookies(history).any(|cookie| !self.cookies.contains(&cookie));
        self.at.elapsed() >= OWNERS_EVERY || (self.at.elapsed() >= OWNERS_AT_MOST && has_new())
    }
}

fn cookies(history: &History) -> impl Iterator<Item = [u8; 8]> {
    history.now().into_iter().flat_map(|now| now.listeners.iter().map(|listener| listener.cookie))
}

/// Sleeps, but not past the end.
fn wait(time: Duration, ended: &AtomicBool) {
    let due = Instant::now() + time;
    while !ended.load(Ordering::Relaxed) && Instant::now() < due {
        thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
    }
}

/// Asks the kernel.
#[derive(Debug)]
struct Looker {
    diag: Diag,
    target: Option<Target>,
    began: Instant,
}

impl Looker {
    fn look(&self) -> io::Result<Moment> {
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
        let waiting: Vec<Waiting> = match port {
            Some(port) => {
                Waiting::of_port(&self.diag, port)?.into_iter().filter(Waiting::is_unowned).collect()
            }
            None => Waiting::dead(&self.diag)?,
        };
        let specific = specific(tcp.iter());
        let (mut dead, mut oldest) = (HashMap::new(), HashMap::new());
        let mut groups = HashMap::new();
        for listener in &listeners {
            let count = match listener.socket() {
                None => listener.gone_clients(),
                Some(address) => {
                    // Of one address once, and not once for each of its listeners.
                    let (count, age) = *groups.entry(address).or_insert_with(|| {
                        let own = waiting.iter().filter(|one| one.came_by(address, &specific));
                        let depth = listeners.iter().filter(|other| other.socket() == Some(address));
                        group(own, depth.map(|other| other.queued as usize).sum(), port.is_some())
                    });
                    oldest.extend(age.filter(|_| listener.queued > 0).map(|age| (listener.cookie, age)));
                    Some(count)
                }
            };
            dead.extend(count.map(|count| (listener.cookie, count)));
        }
        Ok(Moment { at, listeners, queued_tcp, counters, dead, oldest })
    }

    fn owners(&self, history: &History) -> Owners {
        let listeners = history.now().map_or(&[][..], |now| &now.listeners);
        Owners::of(&listeners.iter().map(|listener| listener.inode).collect::<HashSet<u64>>())
    }
}

/// How many of those who wait at an address are dead, and how long the oldest has waited.
///
/// Where all of them are listed, those who are missing were reset: they stay in the queue, and out of the list.
fn group<'a>(
    waiting: impl Iterator<Item = &'a Waiting>,
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
