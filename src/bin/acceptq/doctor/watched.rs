//! A listener's owner over time: its threads at every look.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::see::{Doing, Holder, Thread};

/// The threads of the processes that have one listener.
#[derive(Debug)]
pub(crate) struct Watched {
    pids: Vec<i32>,
    threads: HashMap<i32, Seen>,
    before: HashMap<i32, (bool, u64)>,
    /// For each look the threads that were there, and whether they slept all the time.
    looks: Vec<Vec<(i32, bool)>>,
}

/// Every thread of some processes at one moment.
pub(crate) type Threads = HashMap<i32, Vec<Thread>>;

/// Looks at the threads of all of them; at each process once, however many listeners it has.
pub(crate) fn threads(all: &[Watched]) -> Threads {
    let pids: HashSet<i32> = all.iter().flat_map(|watched| watched.pids.iter().copied()).collect();
    pids.into_iter().map(|pid| (pid, Thread::of(pid))).collect()
}

/// One thread, over all looks.
#[derive(Debug)]
struct Seen {
    first: Thread,
    last: Thread,
    doing: HashSet<Doing>,
    times: usize,
}

/// What the owner's threads cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Of the busiest one, as a share of one processor.
    pub(crate) cpu: f64,
    pub(crate) system: f64,
    pub(crate) never_asleep: bool,
    /// Some thread was seen in a call that is no wait for events, and did not stay in it.
    pub(crate) works_in_calls: bool,
    /// Of the most restless one.
    pub(crate) sleeps_per_second: f64,
}

impl Watched {
    pub(crate) fn new(holders: &[Holder]) -> Self {
        let mut pids: Vec<i32> = holders.iter().map(|holder| holder.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        Self { pids, threads: HashMap::new(), before: HashMap::new(), looks: Vec::new() }
    }

    /// Right before a look at the queue.
    pub(crate) fn before(&mut self, threads: &Threads) {
        self.before.clear();
        for thread in self.of(threads) {
            self.before.insert(thread.tid, (thread.doing.is_asleep(), thread.sleeps));
            self.note(thread);
        }
    }

    /// Right after it. Who slept then and now and has not gone to sleep in between has slept all the time.
    pub(crate) fn after(&mut self, threads: &Threads) {
        let now = self.of(threads);
        let slept = |thread: &Thread| {
            thread.doing.is_asleep() && self.before.get(&thread.tid) == Some(&(true, thread.sleeps))
        };
        self.looks.push(now.iter().map(|thread| (thread.tid, slept(thread))).collect());
        now.into_iter().for_each(|thread| self.note(thread));
    }

    fn of(&self, threads: &Threads) -> Vec<Thread> {
        self.pids.iter().filter_map(|pid| threads.get(pid)).flatten().cloned().collect()
    }

    fn note(&mut self, thread: Thread) {
        let doing = thread.doing.clone();
        let new = || Seen { first: thread.clone(), last: thread.clone(), doing: HashSet::new(), times: 0 };
        let seen = self.threads.entry(thread.tid).or_insert_with(new);
        seen.last = thread;
        seen.times += 1;
        seen.doing.insert(doing);
    }

    /// For each look whether those slept who wait for the listener's events; `None` if nobody was there.
    ///
    /// Who has been seen waiting in one of its epolls does. Where nobody has, any thread may.
    pub(crate) fn asleep(&self, epolls: &[(i32, Vec<i32>)]) -> Vec<Option<bool>> {
        let waits = |seen: &Seen| {
            let own = epolls.iter().filter(|(pid, _)| *pid == seen.first.pid);
            let (mut surely, mut perhaps) = (false, false);
            for (_, numbers) in own {
                surely |= seen
                    .doing
                    .iter()
                    .any(|doing| matches!(doing, Doing::EpollWait(Some(epoll)) if numbers.contains(epoll)));
                perhaps |= seen.doing.contains(&Doing::EpollWait(None));
            }
            surely || perhaps
        };
        let waiters: HashSet<i32> =
            self.threads.values().filter(|seen| waits(seen)).map(|seen| seen.first.tid).collect();
        let counts = |tid: i32| waiters.is_empty() || waiters.contains(&tid);
        let of_look = |look: &Vec<(i32, bool)>| {
            let mut chosen = look.iter().filter(|(tid, _)| counts(*tid)).peekable();
            chosen.peek().is_some().then(|| chosen.all(|(_, slept)| *slept))
        };
        self.looks.iter().map(of_look).collect()
    }

    /// What they were seen at, each once, in a fixed order.
    pub(crate) fn doing(&self) -> Vec<Doing> {
        let mut all: Vec<Doing> = self.threads.values().flat_map(|seen| seen.doing.iter().cloned()).collect();
        all.sort_by_key(|doing| format!("{doing:?}"));
        all.dedup();
        all
    }

    /// Whether a thread of this process was seen waiting in one of these epolls. `None` if it may have been.
    pub(crate) fn waits_in(&self, pid: i32, epolls: &[i32]) -> Option<bool> {
        let threads = self.threads.values().filter(|seen| seen.first.pid == pid);
        let doing: Vec<&Doing> = threads.flat_map(|seen| &seen.doing).collect();
        let waits =
            |doing: &&&Doing| matches!(doing, Doing::EpollWait(Some(epoll)) if epolls.contains(epoll));
        let may_wait = |doing: &&&Doing| {
            matches!(doing, Doing::EpollWait(None) | Doing::Asleep | Doing::Running | Doing::Stopped)
        };
        if doing.iter().any(|doing| waits(&doing)) {
            return Some(true);
        }
        let unknown = doing.is_empty() || doing.iter().any(|doing| may_wait(&doing));
        (!unknown).then_some(false)
    }

    /// Whether a thread sleeps in accept on the listener.
    pub(crate) fn accepts_on(&self, holders: &[Holder]) -> bool {
        self.threads.values().any(|seen| {
            let on_it =
                |fd: i32| holders.iter().any(|holder| (holder.pid, holder.fd) == (seen.first.pid, fd));
            seen.doing.iter().any(|doing| match doing {
                Doing::Accept(Some(fd)) => on_it(*fd),
                Doing::Accept(None) => true,
                _ => false,
            })
        })
    }

    pub(crate) fn load(&self, elapsed: Duration) -> Load {
        let mut load = Load::default();
        let seconds = elapsed.as_secs_f64().max(0.001);
        for seen in self.threads.values() {
            let user = share(seen.first.user, seen.last.user, seconds);
            let system = share(seen.first.system, seen.last.system, seconds);
            // One that came and went in between was not there to sleep: each look sees a thread twice.
            let is_lasting = seen.times >= self.looks.len();
            let never_asleep = is_lasting && seen.doing.iter().all(|doing| *doing == Doing::Running);
            // On a machine that is busy with others one that never sleeps may have got next to nothing.
            if (never_asleep, user + system) >= (load.never_asleep, load.cpu) {
                (load.cpu, load.system, load.never_asleep) = (user + system, system, never_asleep);
            }
            let in_a_call = seen.doing.iter().any(|doing| matches!(doing, Doing::Other(_)));
            load.works_in_calls |= in_a_call && seen.last.sleeps != seen.first.sleeps;
            #[expect(clippy::cast_precision_loss, reason = "a count of one second")]
            let sleeps = seen.last.sleeps.saturating_sub(seen.first.sleeps) as f64 / seconds;
            load.sleeps_per_second = load.sleeps_per_second.max(sleeps);
        }
        load
    }
}

/// Clock ticks as a share of one processor.
#[expect(clippy::cast_precision_loss, reason = "the ticks of a few seconds")]
fn share(first: u64, last: u64, seconds: f64) -> f64 {
    last.saturating_sub(first) as f64 / procfs::ticks_per_second() as f64 / seconds
}
