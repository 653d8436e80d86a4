//! From the kernel to the facts: looks at a listener and its owner again and again for a while.

use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{Facts, Owner, Sample, Watch};
use super::queue::{Queue, Queues};
use super::watched::{self, Watched};
use crate::see::owners::{self, Table};
use crate::see::{
    Address, Counters, Diag, Doing, Holder, How, Listener, Owners, Registration, Target, Waiting,
};

/// How many looks a while is divided into.
const LOOKS: u32 = 20;

/// Everything about one listener: the facts to judge, and the particulars to show.
#[derive(Debug)]
pub(crate) struct Case {
    /// As it was at the last look.
    pub(crate) listener: Listener,
    pub(crate) facts: Facts,
    pub(crate) holders: Vec<Holder>,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) table: Option<(i32, Table)>,
    /// Those who wait, the oldest first. `None` where the kernel does not list them one by one.
    pub(crate) waiting: Option<Rc<[Waiting]>>,
    /// Connections in CLOSE_WAIT that no process has. `None` for Unix sockets.
    pub(crate) close_wait_unowned: Option<usize>,
    /// Those whose client has gone: CLOSE_WAIT or reset, or, in a Unix queue, closed.
    pub(crate) dead: Option<usize>,
    /// The numbers of waiting connections are those of all listeners on this address.
    pub(crate) shared: bool,
}

/// What was seen, all in all.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) cases: Vec<Case>,
    /// The namespace's counters before, and by how much they grew.
    pub(crate) counters: Counters,
    pub(crate) overflows_meanwhile: Option<u64>,
    pub(crate) watched: Duration,
    /// Listeners that were there at first, and not to the end.
    pub(crate) closed: usize,
    /// Processes whose descriptors could not be seen.
    pub(crate) hidden: usize,
    /// And some that are not even listed.
    pub(crate) unlisted: bool,
}

/// One look at the queues.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) listeners: Vec<Listener>,
    /// On the same port, and not asked about.
    pub(crate) others: Vec<Listener>,
    pub(crate) connections: Option<Vec<Waiting>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    First,
    Between,
    Last,
}

/// Watches the target's listeners for a while. None at all is an empty answer.
pub(crate) fn gather(diag: &Diag, target: &Target, time: Duration) -> io::Result<Gathered> {
    let counters = Counters::now();
    let mut looks = vec![look(diag, target, When::First)?];
    let inodes: HashSet<u64> = looks[0].listeners.iter().map(|listener| listener.inode).collect();
    let before = Owners::of(&inodes);
    let mut watched: Vec<Watched> =
        looks[0].listeners.iter().map(|listener| Watched::new(before.holders(listener.inode))).collect();
    let began = Instant::now();
    for number in 1..=LOOKS {
        if looks[0].listeners.is_empty() {
            break;
        }
        thread::sleep((time * number / LOOKS).saturating_sub(began.elapsed()));
        let threads = watched::threads(&watched);
        watched.iter_mut().for_each(|one| one.before(&threads));
        looks.push(look(diag, target, if number == LOOKS { When::Last } else { When::Between })?);
        let threads = watched::threads(&watched);
        watched.iter_mut().for_each(|one| one.after(&threads));
    }
    let elapsed = began.elapsed();
    let after = Owners::of(&inodes);
    let sightings = Sightings::new(diag, &looks, [&before, &after], elapsed)?;
    let all = looks[0].listeners.iter().zip(&watched);
    let mut cases: Vec<Case> =
        all.filter_map(|(listener, watched)| sightings.case(listener, watched)).collect();
    let closed = looks[0].listeners.len() - cases.len();
    mark_siblings(&mut cases);
    let overflows_meanwhile = Counters::now()
        .listen_overflows
        .zip(counters.listen_overflows)
        .map(|(now, then)| now.saturating_sub(then));
    Ok(Gathered {
        cases,
        counters,
        overflows_meanwhile,
        watched: elapsed,
        closed,
        hidden: after.hidden,
        unlisted: after.unlisted,
    })
}

/// The first and the last look list the connections too. Their order lets an arrival in between look like one
/// less taken, never like one more.
fn look(diag: &Diag, target: &Target, when: When) -> io::Result<Look> {
    let connections = || target.port().map(|port| Waiting::of_port(diag, port)).transpose();
    let early = if when == When::Last { connections()? } else { None };
    let (listeners, others) = target.listeners(diag)?;
    let late = if when == When::First { connections()? } else { None };
    Ok(Look { listeners, others, connections: early.or(late) })
}

/// For Unix listeners: the sockets that were accepted from them carry their names.
fn established(diag: &Diag, looks: &[Look]) -> io::Result<Vec<(Address, u64)>> {
    let is_unix = looks[0].listeners.iter().any(|listener| listener.kind.is_unix());
    if is_unix { Listener::accepted_unix(diag) } else { Ok(Vec::new()) }
}

/// What was seen, of all listeners together.
struct Sightings<'a> {
    looks: &'a [Look],
    queues: Queues<'a>,
    scans: [&'a Owners; 2],
    /// By process.
    tables: HashMap<i32, Table>,
    machine: Option<Table>,
    elapsed: Duration,
    established: Vec<(Address, u64)>,
}

impl<'a> Sightings<'a> {
    fn new(diag: &Diag, looks: &'a [Look], scans: [&'a Owners; 2], elapsed: Duration) -> io::Result<Self> {
        let holders = looks[0].listeners.iter().flat_map(|listener| scans[1].holders(listener.inode));
        let pids: HashSet<i32> = holders.map(|holder| holder.pid).collect();
        let tables = pids.into_iter().filter_map(|pid| Some((pid, Table::of(pid)?))).collect();
        let (machine, established) = (Table::of_the_machine(), established(diag, looks)?);
        Ok(Self { looks, queues: Queues::of(looks), scans, tables, machine, elapsed, established })
    }

    /// `None` if it closed meanwhile: of that there is nothing to judge.
    fn case(&self, first: &Listener, watched: &Watched) -> Option<Case> {
        let find = |look: &'a Look| look.listeners.iter().find(|other| other.cookie == first.cookie);
        let seen: Vec<&Listener> = self.looks.iter().map_while(find).collect();
        if seen.len() < self.looks.len() {
            return None;
        }
        let listener: Listener = (*seen.last()?).clone();
        let registrations = more_armed(self.scans, listener.inode);
        // The first look has no owner's state beside it.
        let samples = seen.iter().skip(1).zip(watched.asleep(&epolls(&registrations)));
        let samples: Vec<Sample> =
            samples.map(|(listener, asleep)| Sample { queued: listener.queued, asleep }).collect();
        let queue = self.queues.at(first);
        let holders = self.scans[1].holders(listener.inode).to_vec();
        let table = self.fullest_table(&holders);
        let owner = (!holders.is_empty()).then(|| Owner {
            table: table.map(|(_, table)| table),
            ..self.owner(&listener, &queue, watched, &holders, &registrations)
        });
        let dropped = listener.drops.zip(first.drops).map(|(now, then)| now.wrapping_sub(then));
        let (capacity, taken, machine) = (listener.capacity(), queue.taken, self.machine);
        let all_seen = self.scans[1].are_all();
        let facts = Facts { samples, capacity, dropped, taken, owner, all_seen, machine };
        let Queue { waiting, close_wait: close_wait_unowned, dead, shared, .. } = queue;
        Some(Case {
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
        watched: &Watched,
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
        let load = watched.load(self.elapsed);
        Owner {
            watches: registrations.iter().map(|registration| watch(registration, watched)).collect(),
            doing: watched.doing(),
            accepts: watched.accepts_on(holders),
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

    fn fullest_table(&self, holders: &[Holder]) -> Option<(i32, Table)> {
        let tables = holders.iter().filter_map(|holder| Some((holder.pid, *self.tables.get(&holder.pid)?)));
        tables.min_by_key(|(_, table)| table.limit.saturating_sub(table.used))
    }
}

/// An acceptor that pauses and resumes may have been caught at a bad moment: it counts as it was at its best.
fn more_armed(scans: [&Owners; 2], inode: u64) -> Vec<Registration> {
    let best = scans.into_iter().rev().map(|scan| scan.registrations(inode));
    let best = best.max_by_key(|found| (found.iter().filter(|one| one.is_armed()).count(), found.len()));
    best.unwrap_or_default().to_vec()
}

/// By process: where who is to hear of arrivals waits.
fn epolls(registrations: &[Registration]) -> Vec<(i32, Vec<i32>)> {
    let is_armed = registrations.iter().any(Registration::is_armed);
    let chosen = registrations.iter().filter(|one| !is_armed || one.is_armed());
    chosen.map(|one| (one.pid, one.with_outer())).collect()
}

fn watch(registration: &Registration, watched: &Watched) -> Watch {
    let within_edge = registration.outer.iter().any(|(_, how)| *how == How::Edge)
        && !watched.waits_in(registration.pid, &[registration.epoll]).unwrap_or(false);
    Watch {
        how: registration.how,
        within_edge,
        awaited: watched.waits_in(registration.pid, &registration.with_outer()),
    }
}

/// Of several listeners on one address in one process, who is watched tells something of who is not.
fn mark_siblings(cases: &mut [Case]) {
    let watched: Vec<(Address, i32, u64)> = cases
        .iter()
        .filter(|case| !case.registrations.is_empty())
        .flat_map(|case| {
            let of = |holder: &Holder| (case.listener.address.clone(), holder.pid, case.listener.inode);
            case.holders.iter().map(of).collect::<Vec<_>>()
        })
        .collect();
    for case in cases {
        let is_sibling = |(address, pid, inode): &(Address, i32, u64)| {
            *address == case.listener.address
                && *inode != case.listener.inode
                && case.holders.iter().any(|holder| holder.pid == *pid)
        };
        let has_sibling = watched.iter().any(is_sibling);
        if let Some(owner) = &mut case.facts.owner {
            owner.sibling_watched = has_sibling;
        }
    }
}

impl Case {
    /// The process to look at: one that watches the listener, or any that has it.
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

    /// How the listener is watched, in a word; `None` if that could not be seen.
    pub(crate) fn trigger(&self) -> Option<&'static str> {
        let owner = self.facts.owner.as_ref()?;
        let rank = |how: &How| match how {
            How::Edge => 5,
            How::Exclusive => 4,
            How::Oneshot => 3,
            How::Level => 2,
            How::Fired => 1,
            How::Silenced => 0,
        };
        let telling = self.registrations.iter().map(|registration| registration.how).max_by_key(rank);
        match telling {
            Some(how) => Some(how.name()),
            None if owner.accepts => Some("accept"),
            // It may be in the set of a poll, or of an io_uring, which cannot be seen.
            None if owner.doing.iter().any(|doing| matches!(doing, Doing::Poll | Doing::Uring)) => None,
            None if owner.doing.iter().all(|doing| *doing == Doing::Running) => None,
            None => Some("none"),
        }
    }

    /// Whether the owner's threads slept at nearly every look.
    pub(crate) fn owner_asleep(&self) -> Option<bool> {
        let known: Vec<bool> = self.facts.samples.iter().filter_map(|sample| sample.asleep).collect();
        let asleep = known.iter().filter(|asleep| **asleep).count();
        (!known.is_empty()).then(|| asleep * 10 >= known.len() * 8)
    }
}
