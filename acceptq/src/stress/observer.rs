//! The kernel's view of the server during the test, if it runs on this machine.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{SockAddr, Type};

use super::client::{ClientId, Endpoint};
use crate::doctor::Inspection;
use crate::doctor::collect::collect;
use crate::doctor::diagnose::{Cause, Verdict, diagnose};
use crate::doctor::facts::Owner;
use crate::doctor::signs::CPU_BUSY;
use crate::probe::connection::specific;
use crate::probe::target::canonical;
use crate::probe::{Address, Connection, Diag, Kind, Listener, Target, Targets, Thread};

const INIT: i32 = 1;

#[derive(Debug)]
pub(crate) struct Observer {
    diag: Diag,
    target: Target,
    pid: Option<i32>,
    /// Its listener is in this network namespace.
    pub(crate) is_local: bool,
    /// The listeners at the start.
    cookies: Vec<[u8; 8]>,
}

/// The accept queues of the target, combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) queued: u32,
    pub(crate) capacity: u32,
}

/// Where the server's side of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Queue,
    Server,
    /// In neither: closed, or never established.
    Nowhere,
}

/// The doctor's diagnosis, in a few fields.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DoctorSummary {
    pub(crate) verdict: Option<Verdict>,
    pub(crate) cause: Option<Cause>,
    pub(crate) queued: Option<u32>,
    pub(crate) close_wait_unowned: Option<usize>,
    /// Queued connections that the client has closed or reset.
    pub(crate) dead: Option<usize>,
    pub(crate) trigger: Option<&'static str>,
    pub(crate) owner_asleep: Option<bool>,
    pub(crate) cpu_percent: Option<f64>,
    /// Waits and accepts per second of the thread that keeps running, if they were counted.
    pub(crate) waits_per_second: Option<f64>,
    /// Whether they return at once, again and again.
    #[serde(skip)]
    pub(crate) waits_return: Option<bool>,
}

impl Observer {
    /// Finds the server. Returns `Ok(None)` if nothing listens at the target.
    pub(crate) fn of(
        target: &Target,
        pid: Option<i32>,
        anywhere: bool,
    ) -> io::Result<Option<(Self, Endpoint)>> {
        let diag = Diag::new()?;
        let (listeners, _) = target.listeners(&diag)?;
        let is_local = !listeners.is_empty();
        let Some(endpoint) = endpoint(target, listeners.first()) else { return Ok(None) };
        if let Some(address) = endpoint.address.as_socket() {
            if !address.ip().to_canonical().is_loopback() && !anywhere {
                return Err(io::Error::other(format!(
                    "{address} is not a loopback address; use --anywhere to test it"
                )));
            }
            if !is_local && address.ip().is_loopback() {
                return Ok(None);
            }
        }
        let cookies = listeners.iter().map(|listener| listener.cookie).collect();
        Ok(Some((Self { diag, target: target.clone(), pid, is_local, cookies }, endpoint)))
    }

    /// Returns whether the server has closed its listener. Another listener may have replaced it.
    pub(crate) fn is_closed(&self) -> io::Result<bool> {
        let (listeners, _) = self.target.listeners(&self.diag)?;
        let is_old = |listener: &Listener| self.cookies.contains(&listener.cookie);
        Ok(self.is_local && !listeners.iter().any(is_old))
    }

    pub(crate) fn queue(&self) -> io::Result<Option<Queue>> {
        let (listeners, _) = self.target.listeners(&self.diag)?;
        let sum = |number: fn(&Listener) -> u32| listeners.iter().map(number).fold(0, u32::saturating_add);
        let queue = Queue { queued: sum(|one| one.queued), capacity: sum(Listener::capacity) };
        Ok((!listeners.is_empty()).then_some(queue))
    }

    /// Returns the number of connections of the server, queued and accepted, as far as they are visible.
    pub(crate) fn connections(&self) -> io::Result<usize> {
        let (listeners, others) = self.target.listeners(&self.diag)?;
        if !self.is_local {
            return Ok(0);
        }
        let Some(port) = self.target.port() else {
            let is_its = |one: &Listener| listeners.iter().any(|listener| listener.address == one.address);
            let queued: usize = listeners.iter().map(|listener| listener.queued as usize).sum();
            return Ok(queued + Listener::accepted_unix(&self.diag)?.iter().filter(|one| is_its(one)).count());
        };
        let specific = specific(listeners.iter().chain(&others));
        let arrived = |one: &Connection| {
            let mut addresses = listeners.iter().filter_map(Listener::socket);
            addresses.any(|address| one.arrived_at(address, &specific))
        };
        Ok(Connection::of_port(&self.diag, port)?.iter().filter(|one| arrived(one)).count())
    }

    /// Returns the location of each connection; `None` if it is not visible.
    pub(crate) fn locations(&self, ids: &[Option<ClientId>]) -> io::Result<Option<Vec<Location>>> {
        if !self.is_local {
            return Ok(None);
        }
        let mut known: HashMap<ClientId, Location> = HashMap::new();
        let mut otherwise = Location::Nowhere;
        match self.target.port() {
            Some(port) => {
                for one in Connection::of_port(&self.diag, port)? {
                    let location = if one.is_unowned() { Location::Queue } else { Location::Server };
                    known.insert(ClientId::Inet(canonical(one.peer)), location);
                }
            }
            None => {
                // A connected Unix client in no queue has been accepted.
                otherwise = Location::Server;
                let (listeners, _) = self.target.listeners(&self.diag)?;
                for listener in &listeners {
                    let Some(clients) = &listener.clients else { return Ok(None) };
                    known.extend(clients.iter().map(|inode| (ClientId::Inode(*inode), Location::Queue)));
                }
            }
        }
        let location = |id: &Option<ClientId>| match id {
            Some(id) => known.get(id).copied().unwrap_or(otherwise),
            None => Location::Nowhere,
        };
        Ok(Some(ids.iter().map(location).collect()))
    }

    /// Returns the processes to stop: those that have the listener open, or the one of `--pid`.
    pub(crate) fn pids(&self) -> io::Result<Vec<i32>> {
        if let Some(pid) = self.pid {
            return Ok(vec![pid]);
        }
        let (listeners, _) = self.target.listeners(&self.diag)?;
        let inodes = listeners.iter().map(|listener| listener.inode).collect();
        let owners = crate::probe::Owners::of(&inodes);
        let holders = inodes.iter().flat_map(|inode| owners.holders(*inode));
        // init holds the listener too if it activated the server, and cannot be stopped.
        let mut pids: Vec<i32> = holders.map(|holder| holder.pid).filter(|pid| *pid != INIT).collect();
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Runs the doctor for a period.
    pub(crate) fn examine(&self, time: Duration) -> io::Result<DoctorSummary> {
        let before = self.pid.map(Thread::of);
        let began = Instant::now();
        let mut summary = DoctorSummary::default();
        if self.is_local {
            let collected = collect(&self.diag, &Targets::Each(vec![self.target.clone()]), time)?;
            let diagnoses =
                collected.inspections.iter().map(|inspection| (inspection, diagnose(&inspection.facts)));
            if let Some((inspection, rule)) = diagnoses.max_by_key(|(_, rule)| rule.verdict()) {
                summary = DoctorSummary::of(inspection, rule.cause);
            }
        } else if before.is_some() {
            thread::sleep(time);
        }
        // The process of --pid overrides the owner of the listener.
        if let Some((pid, before)) = self.pid.zip(before) {
            let after = Thread::of(pid);
            summary.owner_asleep =
                (!after.is_empty()).then(|| after.iter().all(|thread| thread.activity.is_asleep()));
            summary.cpu_percent = busiest(&before, &after, began.elapsed()).map(percent);
        }
        Ok(summary)
    }
}

impl DoctorSummary {
    fn of(inspection: &Inspection, cause: Cause) -> Self {
        let owner = inspection.facts.owner.as_ref();
        Self {
            verdict: Some(cause.verdict()),
            cause: Some(cause),
            queued: Some(inspection.listener.queued),
            close_wait_unowned: inspection.close_wait_unowned,
            dead: inspection.dead,
            trigger: inspection.trigger(),
            owner_asleep: inspection.owner_asleep(),
            cpu_percent: owner.map(|owner| percent(owner.cpu)),
            waits_per_second: owner.and_then(|owner| owner.calls).map(|calls| calls.waits.round()),
            waits_return: owner.and_then(Owner::waits_return),
        }
    }

    /// Returns whether no thread watches the listener.
    pub(crate) fn is_unwatched(&self) -> bool {
        matches!(self.cause, Some(Cause::Unwatched | Cause::UnwatchedMember))
    }

    /// Returns whether its threads are blocked in other calls although the listener is armed.
    pub(crate) fn is_occupied(&self) -> bool {
        self.cause == Some(Cause::WorkersOccupied) && self.trigger != Some("none")
    }

    /// Returns whether the waits of a thread return at once, or a failing accept is retried immediately.
    pub(crate) fn spins(&self) -> bool {
        match self.verdict {
            Some(Verdict::Spinning) => true,
            None | Some(Verdict::Undetermined | Verdict::Exhausted) => self.waits_return == Some(true),
            // Other verdicts stand: a busy thread may be doing other work.
            Some(_) => false,
        }
    }

    /// Returns whether a thread keeps running without accepting, and its system calls were not counted.
    pub(crate) fn is_busy_uncounted(&self) -> bool {
        let is_busy = match self.verdict {
            // On a loaded machine such a thread may get little CPU time: the doctor also checks whether it blocks.
            Some(Verdict::Busy) => self.cause == Some(Cause::Computes),
            None | Some(Verdict::Undetermined | Verdict::Exhausted) => {
                self.owner_asleep != Some(true) && self.cpu_percent.is_some_and(|cpu| cpu >= CPU_BUSY * 100.0)
            }
            Some(_) => false,
        };
        is_busy && self.waits_return.is_none()
    }
}

fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}

/// Returns the processor time of the busiest thread, as a fraction.
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

/// Returns the address to connect to; `None` if nothing listens at a port or a Unix address.
fn endpoint(target: &Target, listener: Option<&Listener>) -> Option<Endpoint> {
    let kind = match listener.map(|listener| listener.kind) {
        Some(Kind::Seqpacket) => Type::from(libc::SOCK_SEQPACKET),
        _ => Type::STREAM,
    };
    let address = match target {
        Target::Address(address) => reachable(*address).into(),
        Target::Port(_) | Target::Host(_) => match listener?.address {
            Address::Inet(address) => reachable(address).into(),
            _ => return None,
        },
        Target::Path(path) => listener.and_then(|_| SockAddr::unix(path).ok())?,
        Target::Abstract(name) => listener.and_then(|_| SockAddr::unix(format!("\0{name}")).ok())?,
    };
    Some(Endpoint { address, kind })
}

/// Replaces a wildcard address with loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
