//! What the kernel tells of the server while the ordeal goes on; of one that is elsewhere it tells nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{SockAddr, Type};

use super::client::{Door, Name, canonical};
use crate::doctor::gather::{Case, gather};
use crate::doctor::judge::{Cause, Verdict, judge};
use crate::see::{Address, Diag, Kind, Listener, Target, Thread, Waiting};

const INIT: i32 = 1;
/// From here on a thread burns its processor.
const CPU_BUSY: f64 = 0.15;

/// The kernel's view of one server.
#[derive(Debug)]
pub(crate) struct Sight {
    diag: Diag,
    target: Target,
    pid: Option<i32>,
    /// Whether its listener is in this network namespace.
    pub(crate) is_here: bool,
    /// The listeners as they were found.
    cookies: Vec<[u8; 8]>,
}

/// Queues of the target, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) queued: u32,
    pub(crate) capacity: u32,
}

/// Where a connection is on the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Queue,
    Server,
    /// In neither: closed, or never got there.
    Nowhere,
}

/// What the doctor says, in a few fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Seen {
    pub(crate) verdict: Option<Verdict>,
    pub(crate) cause: Option<Cause>,
    pub(crate) queued: Option<u32>,
    pub(crate) close_wait_unowned: Option<usize>,
    /// In CLOSE_WAIT without an owner, or reset; for Unix sockets those in the queue whose client has closed.
    pub(crate) dead: Option<usize>,
    pub(crate) trigger: Option<&'static str>,
    pub(crate) owner_asleep: Option<bool>,
    pub(crate) cpu_percent: Option<f64>,
}

impl Sight {
    /// Finds the server's door. `Ok(None)` if nothing listens there.
    pub(crate) fn of(target: &Target, pid: Option<i32>, anywhere: bool) -> io::Result<Option<(Self, Door)>> {
        let diag = Diag::new()?;
        let (listeners, _) = target.listeners(&diag)?;
        let is_here = !listeners.is_empty();
        let Some(door) = door(target, listeners.first()) else { return Ok(None) };
        if let Some(address) = door.address.as_socket() {
            if !address.ip().to_canonical().is_loopback() && !anywhere {
                return Err(io::Error::other(format!(
                    "{address} is not a loopback address; --anywhere puts servers elsewhere through it, too"
                )));
            }
            if !is_here && address.ip().is_loopback() {
                return Ok(None);
            }
        }
        let cookies = listeners.iter().map(|listener| listener.cookie).collect();
        Ok(Some((Self { diag, target: target.clone(), pid, is_here, cookies }, door)))
    }

    /// Whether the server has closed its listener since; another one may be in its place.
    pub(crate) fn is_gone(&self) -> io::Result<bool> {
        let (listeners, _) = self.target.listeners(&self.diag)?;
        let is_old = |listener: &Listener| self.cookies.contains(&listener.cookie);
        Ok(self.is_here && !listeners.iter().any(is_old))
    }

    pub(crate) fn queue(&self) -> io::Result<Option<Queue>> {
        let (listeners, _) = self.target.listeners(&self.diag)?;
        let sum = |number: fn(&Listener) -> u32| listeners.iter().map(number).fold(0, u32::saturating_add);
        let queue = Queue { queued: sum(|one| one.queued), capacity: sum(Listener::capacity) };
        Ok((!listeners.is_empty()).then_some(queue))
    }

    /// Where each of these connections is. `None` if that cannot be seen.
    pub(crate) fn places(&self, names: &[Option<Name>]) -> io::Result<Option<Vec<Place>>> {
        if !self.is_here {
            return Ok(None);
        }
        let mut known: HashMap<Name, Place> = HashMap::new();
        let mut otherwise = Place::Nowhere;
        match self.target.port() {
            Some(port) => {
                for one in Waiting::of_port(&self.diag, port)? {
                    let place = if one.is_unowned() { Place::Queue } else { Place::Server };
                    known.insert(Name::Inet(canonical(one.peer)), place);
                }
            }
            None => {
                // A Unix client that is connected and in no queue has been taken.
                otherwise = Place::Server;
                let (listeners, _) = self.target.listeners(&self.diag)?;
                for listener in &listeners {
                    let Some(clients) = &listener.clients else { return Ok(None) };
                    known.extend(clients.iter().map(|inode| (Name::Inode(*inode), Place::Queue)));
                }
            }
        }
        let place = |name: &Option<Name>| match name {
            Some(name) => known.get(name).copied().unwrap_or(otherwise),
            None => Place::Nowhere,
        };
        Ok(Some(names.iter().map(place).collect()))
    }

    /// The processes that may be stopped: those that have the listener, or the one that was named.
    pub(crate) fn pids(&self) -> io::Result<Vec<i32>> {
        if let Some(pid) = self.pid {
            return Ok(vec![pid]);
        }
        let (listeners, _) = self.target.listeners(&self.diag)?;
        let inodes = listeners.iter().map(|listener| listener.inode).collect();
        let owners = crate::see::Owners::of(&inodes);
        let holders = inodes.iter().flat_map(|inode| owners.holders(*inode));
        // Whoever activates it by its socket holds it as well, and cannot be stopped.
        let mut pids: Vec<i32> = holders.map(|holder| holder.pid).filter(|pid| *pid != INIT).collect();
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// What the doctor says, after watching for a while.
    pub(crate) fn examine(&self, time: Duration) -> io::Result<Seen> {
        let before = self.pid.map(Thread::of);
        let began = Instant::now();
        let mut seen = Seen::default();
        if self.is_here {
            let gathered = gather(&self.diag, &self.target, time)?;
            let judged = gathered.cases.iter().map(|case| (case, judge(&case.facts)));
            if let Some((case, cause)) = judged.max_by_key(|(_, cause)| cause.verdict()) {
                seen = Seen::of(case, cause);
            }
        } else if before.is_some() {
            thread::sleep(time);
        }
        // The process that was named is the one that is asked about.
        if let Some((pid, before)) = self.pid.zip(before) {
            let after = Thread::of(pid);
            seen.owner_asleep =
                (!after.is_empty()).then(|| after.iter().all(|thread| thread.doing.is_asleep()));
            seen.cpu_percent = busiest(&before, &after, began.elapsed()).map(percent);
        }
        Ok(seen)
    }
}

impl Seen {
    fn of(case: &Case, cause: Cause) -> Self {
        Self {
            verdict: Some(cause.verdict()),
            cause: Some(cause),
            queued: Some(case.listener.queued),
            close_wait_unowned: case.close_wait_unowned,
            dead: case.dead,
            trigger: case.trigger(),
            owner_asleep: case.owner_asleep(),
            cpu_percent: case.facts.owner.as_ref().map(|owner| percent(owner.cpu)),
        }
    }

    /// Burns processor time with nothing to do but connections that it does not take.
    pub(crate) fn spins(&self) -> bool {
        let is_busy = self.cpu_percent.is_some_and(|cpu| cpu >= CPU_BUSY * 100.0);
        match self.verdict {
            Some(Verdict::Spinning) => true,
            // A failing accept that is tried again at once.
            None | Some(Verdict::Undetermined | Verdict::Exhausted) => {
                is_busy && self.owner_asleep != Some(true)
            }
            // What the doctor could explain, a thread that works on something else does not change.
            Some(_) => false,
        }
    }
}

fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}

/// The busiest thread's share of a processor.
fn busiest(before: &[Thread], after: &[Thread], time: Duration) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let ticks_per_second = procfs::ticks_per_second() as f64;
    let shares = after.iter().filter_map(|now| {
        let then = before.iter().find(|then| then.tid == now.tid)?;
        #[expect(clippy::cast_precision_loss, reason = "the ticks of a few seconds")]
        let ticks = (now.user + now.system).saturating_sub(then.user + then.system) as f64;
        Some(ticks / ticks_per_second / time.as_secs_f64())
    });
    shares.reduce(f64::max)
}

/// How to get to it. `None` for a port or a name that nobody listens at.
fn door(target: &Target, listener: Option<&Listener>) -> Option<Door> {
    let kind = match listener.map(|listener| listener.kind) {
        Some(Kind::Seqpacket) => Type::from(libc::SOCK_SEQPACKET),
        _ => Type::STREAM,
    };
    let address = match target {
        Target::Address(address) => reachable(*address).into(),
        Target::Port(_) => match listener?.address {
            Address::Inet(address) => reachable(address).into(),
            _ => return None,
        },
        Target::Path(path) => listener.and_then(|_| SockAddr::unix(path).ok())?,
        Target::Abstract(name) => listener.and_then(|_| SockAddr::unix(format!("\0{name}")).ok())?,
    };
    Some(Door { address, kind })
}

/// A wildcard is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
