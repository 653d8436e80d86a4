//! Collects the facts: samples a listener and its owner repeatedly over a period.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{Clients, Facts, Owner, RegistrationFacts, Sample};
use super::inspection::{Inspection, Process};
use super::queue::{Queue, Queues};
use super::thread_sampler::{self, ThreadSampler};
use super::workers;
use crate::probe::calls::{CallCounter, CallRates};
use crate::probe::connection::specific;
use crate::probe::owners::FdTable;
use crate::probe::{
    Address, Connection, Counters, Diag, Holder, Listener, Owners, Registration, Targets, Trigger,
};

/// Snapshots per period, after the first one.
const SNAPSHOTS: u32 = 20;
/// After this snapshot the system calls of suspicious threads are counted.
const COUNT_CALLS_AFTER: u32 = 10;
/// The maximum number of threads whose system calls are counted, for each listener.
const COUNTED_THREADS: usize = 4;
/// Up to this many connections are listed in every snapshot, not only in the first and the last one.
const LISTED_OFTEN: usize = 500;

/// An idle server wakes less often in a second.
const MANY_WAKEUPS: u64 = 3;

/// The observations of all listeners of a target.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) inspections: Vec<Inspection>,
    /// The counters of the namespace at the start.
    pub(crate) counters: Counters,
    pub(crate) overflows_meanwhile: Option<u64>,
    pub(crate) period: Duration,
    /// Listeners that closed during the period.
    pub(crate) closed: usize,
    /// The number of processes with hidden descriptors.
    pub(crate) hidden: usize,
    /// Other users' processes are not listed (`hidepid`).
    pub(crate) unlisted: bool,
    /// The argument of `--netns` that selects the network namespace; `None` for the user's own.
    pub(crate) netns: Option<String>,
}

#[derive(Debug)]
pub(crate) struct QueueSnapshot {
    pub(crate) listeners: Vec<Listener>,
    /// On the same port, but not selected.
    pub(crate) others: Vec<Listener>,
    pub(crate) connections: Option<Vec<Connection>>,
    /// The listening addresses that are not wildcards.
    pub(crate) specific: HashSet<SocketAddr>,
    /// The accepted Unix sockets, in the first and in the last snapshot.
    pub(crate) accepted_unix: Vec<Listener>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    First,
    Between { lists: bool },
    Last,
}

/// Samples the listeners of the targets for a period. Without listeners the result is empty.
pub(crate) fn collect(diag: &Diag, targets: &Targets, time: Duration) -> io::Result<Collected> {
    let began = Instant::now();
    let counters = Counters::now();
    let mut snapshots = vec![snapshot(diag, targets, When::First)?];
    let inodes: HashSet<u64> = snapshots[0].listeners.iter().map(|listener| listener.inode).collect();
    let before = Owners::of(&inodes);
    let mut samplers: Vec<ThreadSampler> = snapshots[0]
        .listeners
        .iter()
        .map(|listener| ThreadSampler::new(before.holders(listener.inode)))
        .collect();
    let lists = snapshots[0].connections.as_ref().is_some_and(|all| all.len() <= LISTED_OFTEN);
    let mut counters_of: Vec<Vec<CallCounter>> = Vec::new();
    // The search for the owners is part of the period.
    let (search, searched) = (began.elapsed(), Instant::now());
    let rest = time.saturating_sub(search).max(time / 2);
    for number in 1..=SNAPSHOTS {
        if snapshots[0].listeners.is_empty() {
            break;
        }
        thread::sleep((rest * number / SNAPSHOTS).saturating_sub(searched.elapsed()));
        let threads = thread_sampler::threads(&samplers);
        samplers.iter_mut().for_each(|one| one.before(&threads));
        let when = if number == SNAPSHOTS { When::Last } else { When::Between { lists } };
        snapshots.push(snapshot(diag, targets, when)?);
        let threads = thread_sampler::threads(&samplers);
        samplers.iter_mut().for_each(|one| one.after(&threads));
        if number == COUNT_CALLS_AFTER {
            counters_of = count_calls(&snapshots, &samplers, &before);
        }
    }
    let calls: Vec<Option<CallRates>> = counters_of.into_iter().map(most_waits).collect();
    let elapsed = began.elapsed();
    let after = Owners::of(&inodes);
    let now = Counters::now();
    let grown =
        |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(now, then)| now.saturating_sub(then));
    let overflows_meanwhile = grown(now.listen_overflows, counters.listen_overflows);
    let arrivals = grown(now.passive_opens, counters.passive_opens).unwrap_or(0);
    let observations =
        Observations::new(&snapshots, [&before, &after], elapsed, Growth { overflows_meanwhile, arrivals });
    let all = snapshots[0].listeners.iter().zip(&samplers).enumerate();
    let mut inspections: Vec<Inspection> = all
        .filter_map(|(number, (listener, sampler))| {
            observations.inspection(listener, sampler, calls.get(number).copied().flatten())
        })
        .collect();
    let closed = snapshots[0].listeners.len() - inspections.len();
    mark_siblings(&mut inspections);
    Ok(Collected {
        inspections,
        counters,
        overflows_meanwhile,
        period: elapsed,
        closed,
        hidden: after.hidden,
        unlisted: after.unlisted,
        netns: None,
    })
}

/// Takes a snapshot. The first and the last one also list the connections, in such an order that an arrival in
/// between can hide an accept but not fake one.
fn snapshot(diag: &Diag, targets: &Targets, when: When) -> io::Result<QueueSnapshot> {
    let is_end = matches!(when, When::First | When::Last);
    let connections = || targets.connections(diag, is_end);
    let early = if when == When::Last { connections()? } else { None };
    let (listeners, others) = targets.listeners(diag)?;
    let late =
        if matches!(when, When::First | When::Between { lists: true }) { connections()? } else { None };
    let is_unix = listeners.iter().any(|listener| listener.kind.is_unix());
    let accepted_unix = if is_end && is_unix { Listener::accepted_unix(diag)? } else { Vec::new() };
    let specific = specific(listeners.iter().chain(&others));
    Ok(QueueSnapshot { listeners, others, connections: early.or(late), specific, accepted_unix })
}

/// Starts to count the system calls of the threads that keep running although connections are queued.
fn count_calls(
    snapshots: &[QueueSnapshot],
    samplers: &[ThreadSampler],
    owners: &Owners,
) -> Vec<Vec<CallCounter>> {
    let waits = |first: &Listener| {
        let mut queued = snapshots.iter().filter_map(|snapshot| snapshot.find(first));
        queued.all(|listener| listener.queued > 0)
    };
    let count = |(listener, sampler): (&Listener, &ThreadSampler)| {
        let epolls = armed_epolls(owners.registrations(listener.inode));
        let suspects = if waits(listener) { sampler.running_waiters(&epolls) } else { Vec::new() };
        suspects.into_iter().take(COUNTED_THREADS).filter_map(|thread| CallCounter::of(thread).ok()).collect()
    };
    snapshots[0].listeners.iter().zip(samplers).map(count).collect()
}

/// Returns the rates of the thread with the most waits that do not block.
fn most_waits(counters: Vec<CallCounter>) -> Option<CallRates> {
    let rates = counters.into_iter().filter_map(|mut counter| counter.rates().ok());
    rates.max_by(|one, other| (one.waits - one.sleeps).total_cmp(&(other.waits - other.sleeps)))
}

/// The samples of all listeners.
struct Observations<'a> {
    snapshots: &'a [QueueSnapshot],
    queues: Queues<'a>,
    scans: [&'a Owners; 2],
    /// By process id.
    tables: HashMap<i32, FdTable>,
    system_files: Option<FdTable>,
    elapsed: Duration,
    growth: Growth,
}

/// The growth of the counters of the network namespace during the period.
#[derive(Clone, Copy, Debug)]
struct Growth {
    overflows_meanwhile: Option<u64>,
    arrivals: u64,
}

impl<'a> Observations<'a> {
    fn new(
        snapshots: &'a [QueueSnapshot],
        scans: [&'a Owners; 2],
        elapsed: Duration,
        growth: Growth,
    ) -> Self {
        let holders = snapshots[0].listeners.iter().flat_map(|listener| scans[1].holders(listener.inode));
        let pids: HashSet<i32> = holders.map(|holder| holder.pid).collect();
        let tables = pids.into_iter().filter_map(|pid| Some((pid, FdTable::of(pid)?))).collect();
        let system_files = FdTable::system_wide();
        Self { snapshots, queues: Queues::of(snapshots), scans, tables, system_files, elapsed, growth }
    }

    /// Evaluates one listener. Returns `None` if it closed during the period.
    fn inspection(
        &self,
        first: &Listener,
        sampler: &ThreadSampler,
        calls: Option<CallRates>,
    ) -> Option<Inspection> {
        let seen: Vec<&Listener> = self.snapshots.iter().map_while(|snapshot| snapshot.find(first)).collect();
        if seen.len() < self.snapshots.len() {
            return None;
        }
        let listener: Listener = (*seen.last()?).clone();
        let registrations = most_armed(self.scans, listener.inode);
        // The first snapshot has no sample of the threads.
        let samples = seen.iter().skip(1).zip(sampler.asleep(&armed_epolls(&registrations)));
        let samples: Vec<Sample> =
            samples.map(|(listener, asleep)| Sample { queued: listener.queued, asleep }).collect();
        let holders = self.scans[1].holders(listener.inode).to_vec();
        let is_own = |inode: u64| {
            let owner = self.scans[1].owner_of(inode);
            owner.is_some_and(|owner| holders.iter().any(|holder| holder.pid == owner))
        };
        let queue = self.queues.at(first, is_own);
        let pids = workers::accepting(&holders, &registrations, sampler);
        let processes: Vec<Process> = pids.iter().map(|pid| self.process(*pid, &queue, sampler)).collect();
        let table = self.fullest_table(&pids);
        let is_tcp = !listener.kind.is_unix();
        let wakeups = sampler.wakeups(&pids);
        let may_have_arrived =
            is_tcp && self.growth.arrivals > 0 && wakeups >= MANY_WAKEUPS.max(self.growth.arrivals / 2);
        let owner = (!holders.is_empty()).then(|| Owner {
            fd_table: table.map(|(_, table)| table),
            calls,
            ..self.owner(sampler, &holders, &registrations, &processes)
        });
        let dropped = listener.drops.zip(first.drops).map(|(now, then)| now.wrapping_sub(then));
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |count: usize| count as f64 / self.elapsed.as_secs_f64().max(0.001);
        let oldest_wait = queue.waiting.as_ref().and_then(|all| all.iter().filter_map(|one| one.age).max());
        let facts = Facts {
            samples,
            capacity: listener.capacity(),
            dropped,
            overflows: self.growth.overflows_meanwhile,
            any_accepted: queue.any_accepted,
            accept_rate: queue.accepted_count.map(rate),
            oldest_wait,
            clients: Clients { may_have_arrived, ..queue.clients },
            owner,
            all_processes_visible: self.scans[1].is_complete(),
            system_files: self.system_files,
        };
        let Queue { waiting, close_wait: close_wait_unowned, dead, shared, .. } = queue;
        Some(Inspection {
            listener,
            facts,
            holders,
            registrations,
            processes,
            table,
            waiting,
            close_wait_unowned,
            dead,
            shared,
        })
    }

    fn process(&self, pid: i32, queue: &Queue, sampler: &ThreadSampler) -> Process {
        let accepted = queue.accepted.iter().filter(|inode| self.scans[1].owner_of(**inode) == Some(pid));
        Process {
            pid,
            activities: sampler.threads_by_activity(pid),
            cpu: sampler.load(&[pid]).cpu,
            accepted: accepted.count(),
            is_stopped: sampler.is_stopped(pid),
        }
    }

    fn owner(
        &self,
        sampler: &ThreadSampler,
        holders: &[Holder],
        registrations: &[Registration],
        processes: &[Process],
    ) -> Owner {
        let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
        let load = sampler.load(&pids);
        let accepted_alive = processes.iter().map(|process| process.accepted).sum();
        let own = registrations.iter().filter(|registration| pids.contains(&registration.pid));
        Owner {
            registrations: own.map(|registration| registration_facts(registration, sampler)).collect(),
            activities: sampler.activities(&pids),
            accepts: pids.iter().any(|pid| sampler.accepts_on(*pid, holders)),
            cpu: load.cpu,
            never_asleep: load.never_asleep,
            tid: load.tid,
            works_in_calls: load.works_in_calls,
            accepted_alive,
            processes: processes.len(),
            processes_serving: processes.iter().filter(|process| process.accepted > 0).count(),
            stopped: processes.iter().filter(|one| one.is_stopped).map(|one| one.pid).collect(),
            ..Owner::default()
        }
    }

    fn fullest_table(&self, pids: &[i32]) -> Option<(i32, FdTable)> {
        let tables = pids.iter().filter_map(|pid| Some((*pid, *self.tables.get(pid)?)));
        tables.min_by_key(|(_, table)| table.limit.saturating_sub(table.used))
    }
}

/// Selects the scan with more armed registrations, because an acceptor may pause for a moment.
fn most_armed(scans: [&Owners; 2], inode: u64) -> Vec<Registration> {
    let best = scans.into_iter().rev().map(|scan| scan.registrations(inode));
    let best = best.max_by_key(|found| (found.iter().filter(|one| one.is_armed()).count(), found.len()));
    best.unwrap_or_default().to_vec()
}

/// Returns, by process, the epoll instances that report arrivals; all of them if none does.
fn armed_epolls(registrations: &[Registration]) -> Vec<(i32, Vec<i32>)> {
    let is_armed = registrations.iter().any(Registration::is_armed);
    let chosen = registrations.iter().filter(|one| !is_armed || one.is_armed());
    chosen.map(|one| (one.pid, one.with_outer())).collect()
}

fn registration_facts(registration: &Registration, sampler: &ThreadSampler) -> RegistrationFacts {
    let within_edge = registration.outer.iter().any(|(_, trigger)| *trigger == Trigger::Edge)
        && !sampler.waits_in(registration.pid, &[registration.epoll]).unwrap_or(false);
    RegistrationFacts {
        trigger: registration.trigger,
        within_edge,
        is_of_runtime: registration.is_of_runtime(),
        awaited: sampler.waits_in(registration.pid, &registration.with_outer()),
    }
}

/// Marks each listener whose owner watches another listener on the same address.
fn mark_siblings(inspections: &mut [Inspection]) {
    let watched: Vec<(Address, i32, u64)> = inspections
        .iter()
        .filter(|inspection| !inspection.registrations.is_empty())
        .flat_map(|inspection| {
            let of = |holder: &Holder| {
                (inspection.listener.address.clone(), holder.pid, inspection.listener.inode)
            };
            inspection.holders.iter().map(of).collect::<Vec<_>>()
        })
        .collect();
    for inspection in inspections {
        let is_sibling = |(address, pid, inode): &(Address, i32, u64)| {
            *address == inspection.listener.address
                && *inode != inspection.listener.inode
                && inspection.holders.iter().any(|holder| holder.pid == *pid)
        };
        let has_sibling = watched.iter().any(is_sibling);
        if let Some(owner) = &mut inspection.facts.owner {
            owner.sibling_watched = has_sibling;
        }
    }
}
