//! Collects the facts: samples a listener and its owner repeatedly over a period.

use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{Facts, Owner, RegistrationFacts, Sample};
use super::queue::{Queue, Queues};
use super::thread_sampler::{self, ThreadSampler};
use crate::probe::owners::{self, FdTable};
use crate::probe::{
    Activity, Address, Connection, Counters, Diag, Holder, Listener, Owners, Registration, Target, Trigger,
};

/// Snapshots per period, after the first one.
const SNAPSHOTS: u32 = 20;

/// The observations of one listener: the facts for the diagnosis, and details for the report.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// In the last snapshot.
    pub(crate) listener: Listener,
    pub(crate) facts: Facts,
    pub(crate) holders: Vec<Holder>,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) table: Option<(i32, FdTable)>,
    /// The queued connections, oldest first. `None` for Unix sockets.
    pub(crate) waiting: Option<Rc<[Connection]>>,
    /// Connections in CLOSE_WAIT with inode 0. `None` for Unix sockets.
    pub(crate) close_wait_unowned: Option<usize>,
    /// Queued connections that the client has closed or reset.
    pub(crate) dead: Option<usize>,
    /// The queued connections are those of all listeners on this address.
    pub(crate) shared: bool,
}

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
}

/// A snapshot of the queues.
#[derive(Debug)]
pub(crate) struct QueueSnapshot {
    pub(crate) listeners: Vec<Listener>,
    /// On the same port, but not selected.
    pub(crate) others: Vec<Listener>,
    pub(crate) connections: Option<Vec<Connection>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    First,
    Between,
    Last,
}

/// Samples the listeners of a target for a period. Without listeners the result is empty.
pub(crate) fn collect(diag: &Diag, target: &Target, time: Duration) -> io::Result<Collected> {
    let counters = Counters::now();
    let mut snapshots = vec![snapshot(diag, target, When::First)?];
    let inodes: HashSet<u64> = snapshots[0].listeners.iter().map(|listener| listener.inode).collect();
    let before = Owners::of(&inodes);
    let mut samplers: Vec<ThreadSampler> = snapshots[0]
        .listeners
        .iter()
        .map(|listener| ThreadSampler::new(before.holders(listener.inode)))
        .collect();
    let began = Instant::now();
    for number in 1..=SNAPSHOTS {
        if snapshots[0].listeners.is_empty() {
            break;
        }
        thread::sleep((time * number / SNAPSHOTS).saturating_sub(began.elapsed()));
        let threads = thread_sampler::threads(&samplers);
        samplers.iter_mut().for_each(|one| one.before(&threads));
        snapshots.push(snapshot(diag, target, if number == SNAPSHOTS { When::Last } else { When::Between })?);
        let threads = thread_sampler::threads(&samplers);
        samplers.iter_mut().for_each(|one| one.after(&threads));
    }
    let elapsed = began.elapsed();
    let after = Owners::of(&inodes);
    let observations = Observations::new(diag, &snapshots, [&before, &after], elapsed)?;
    let all = snapshots[0].listeners.iter().zip(&samplers);
    let mut inspections: Vec<Inspection> =
        all.filter_map(|(listener, sampler)| observations.inspection(listener, sampler)).collect();
    let closed = snapshots[0].listeners.len() - inspections.len();
    mark_siblings(&mut inspections);
    let overflows_meanwhile = Counters::now()
        .listen_overflows
        .zip(counters.listen_overflows)
        .map(|(now, then)| now.saturating_sub(then));
    Ok(Collected {
        inspections,
        counters,
        overflows_meanwhile,
        period: elapsed,
        closed,
        hidden: after.hidden,
        unlisted: after.unlisted,
    })
}

/// Takes a snapshot. The first and the last one list the connections too, in an order in which a connection
/// that arrives in between can hide an accept but not fake one.
fn snapshot(diag: &Diag, target: &Target, when: When) -> io::Result<QueueSnapshot> {
    let connections = || target.port().map(|port| Connection::of_port(diag, port)).transpose();
    let early = if when == When::Last { connections()? } else { None };
    let (listeners, others) = target.listeners(diag)?;
    let late = if when == When::First { connections()? } else { None };
    Ok(QueueSnapshot { listeners, others, connections: early.or(late) })
}

/// Lists the accepted Unix sockets, which have the address of their listener.
fn established(diag: &Diag, snapshots: &[QueueSnapshot]) -> io::Result<Vec<(Address, u64)>> {
    let is_unix = snapshots[0].listeners.iter().any(|listener| listener.kind.is_unix());
    if is_unix { Listener::accepted_unix(diag) } else { Ok(Vec::new()) }
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
    established: Vec<(Address, u64)>,
}

impl<'a> Observations<'a> {
    fn new(
        diag: &Diag,
        snapshots: &'a [QueueSnapshot],
        scans: [&'a Owners; 2],
        elapsed: Duration,
    ) -> io::Result<Self> {
        let holders = snapshots[0].listeners.iter().flat_map(|listener| scans[1].holders(listener.inode));
        let pids: HashSet<i32> = holders.map(|holder| holder.pid).collect();
        let tables = pids.into_iter().filter_map(|pid| Some((pid, FdTable::of(pid)?))).collect();
        let (system_files, established) = (FdTable::system_wide(), established(diag, snapshots)?);
        Ok(Self {
            snapshots,
            queues: Queues::of(snapshots),
            scans,
            tables,
            system_files,
            elapsed,
            established,
        })
    }

    /// Evaluates one listener. Returns `None` if it closed during the period.
    fn inspection(&self, first: &Listener, sampler: &ThreadSampler) -> Option<Inspection> {
        let find = |snapshot: &'a QueueSnapshot| {
            snapshot.listeners.iter().find(|other| other.cookie == first.cookie)
        };
        let seen: Vec<&Listener> = self.snapshots.iter().map_while(find).collect();
        if seen.len() < self.snapshots.len() {
            return None;
        }
        let listener: Listener = (*seen.last()?).clone();
        let registrations = most_armed(self.scans, listener.inode);
        // The first snapshot has no sample of the threads.
        let samples = seen.iter().skip(1).zip(sampler.asleep(&armed_epolls(&registrations)));
        let samples: Vec<Sample> =
            samples.map(|(listener, asleep)| Sample { queued: listener.queued, asleep }).collect();
        let queue = self.queues.at(first);
        let holders = self.scans[1].holders(listener.inode).to_vec();
        let table = self.fullest_table(&holders);
        let owner = (!holders.is_empty()).then(|| Owner {
            fd_table: table.map(|(_, table)| table),
            ..self.owner(&listener, &queue, sampler, &holders, &registrations)
        });
        let dropped = listener.drops.zip(first.drops).map(|(now, then)| now.wrapping_sub(then));
        let (capacity, any_accepted, system_files) =
            (listener.capacity(), queue.any_accepted, self.system_files);
        let all_processes_visible = self.scans[1].is_complete();
        let facts =
            Facts { samples, capacity, dropped, any_accepted, owner, all_processes_visible, system_files };
        let Queue { waiting, close_wait: close_wait_unowned, dead, shared, .. } = queue;
        Some(Inspection {
            listener,
            facts,
            holders,
            registrations,
            table,
            waiting,
            close_wait_unowned,
            dead,
            shared,
        })
    }

    fn owner(
        &self,
        listener: &Listener,
        queue: &Queue,
        sampler: &ThreadSampler,
        holders: &[Holder],
        registrations: &[Registration],
    ) -> Owner {
        let pids: HashSet<i32> = holders.iter().map(|holder| holder.pid).collect();
        let is_theirs = |inode: &u64| self.scans[1].owner_of(*inode).is_some_and(|pid| pids.contains(&pid));
        let count = |accepted: &mut dyn Iterator<Item = u64>| {
            accepted.fold((0, 0), |(all, own), inode| (all + 1, own + usize::from(is_theirs(&inode))))
        };
        let (accepted, accepted_alive) = match &listener.address {
            Address::Inet(_) => count(&mut queue.accepted.iter().copied()),
            address => {
                let own = self.established.iter().filter(|(name, _)| name == address);
                count(&mut own.map(|(_, inode)| *inode))
            }
        };
        let load = sampler.load(self.elapsed);
        Owner {
            registrations: registrations
                .iter()
                .map(|registration| registration_facts(registration, sampler))
                .collect(),
            activities: sampler.activities(),
            accepts: sampler.accepts_on(holders),
            cpu: load.cpu,
            cpu_system: load.system,
            never_asleep: load.never_asleep,
            works_in_calls: load.works_in_calls,
            sleeps_per_second: load.sleeps_per_second,
            accepted_alive,
            accepted_elsewhere: accepted > accepted_alive,
            ..Owner::default()
        }
    }

    fn fullest_table(&self, holders: &[Holder]) -> Option<(i32, FdTable)> {
        let tables = holders.iter().filter_map(|holder| Some((holder.pid, *self.tables.get(&holder.pid)?)));
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
        awaited: sampler.waits_in(registration.pid, &registration.with_outer()),
    }
}

/// Marks each listener with an owner that watches another listener on the same address.
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

impl Inspection {
    /// Returns a process that watches the listener or else has it open.
    pub(crate) fn pid(&self) -> Option<i32> {
        let watching = self.registrations.first().map(|registration| registration.pid);
        watching.or_else(|| self.holders.first().map(|holder| holder.pid))
    }

    pub(crate) fn command(&self) -> Option<String> {
        let pid = self.pid()?;
        let known = self.holders.iter().find(|holder| holder.pid == pid);
        Some(known.map_or_else(|| owners::command(pid), |holder| holder.command.clone()))
    }

    pub(crate) fn oldest_wait(&self) -> Option<Duration> {
        self.waiting.as_ref()?.iter().filter_map(|waiting| waiting.age).max()
    }

    /// Returns how the owner waits for arrivals; `None` if that is not visible.
    pub(crate) fn trigger(&self) -> Option<&'static str> {
        let owner = self.facts.owner.as_ref()?;
        let rank = |trigger: &Trigger| match trigger {
            Trigger::Edge => 5,
            Trigger::Exclusive => 4,
            Trigger::Oneshot => 3,
            Trigger::Level => 2,
            Trigger::Fired => 1,
            Trigger::Disarmed => 0,
        };
        let telling = self.registrations.iter().map(|registration| registration.trigger).max_by_key(rank);
        match telling {
            Some(trigger) => Some(trigger.name()),
            None if owner.accepts => Some("accept"),
            // poll and io_uring do not show what they wait for.
            None if owner
                .activities
                .iter()
                .any(|activity| matches!(activity, Activity::Poll | Activity::Uring)) =>
            {
                None
            }
            None if owner.activities.iter().all(|activity| *activity == Activity::Running) => None,
            None => Some("none"),
        }
    }

    /// Returns whether the owner's threads were blocked in at least 80 % of the samples.
    pub(crate) fn owner_asleep(&self) -> Option<bool> {
        let known: Vec<bool> = self.facts.samples.iter().filter_map(|sample| sample.asleep).collect();
        let asleep = known.iter().filter(|asleep| **asleep).count();
        (!known.is_empty()).then(|| asleep * 10 >= known.len() * 8)
    }
}
