//! Samples the threads of a listener's owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::probe::{Activity, Holder, Thread};

/// The threads of the processes that have a listener open.
#[derive(Debug)]
pub(crate) struct ThreadSampler {
    pids: Vec<i32>,
    threads: HashMap<i32, ThreadHistory>,
    before: HashMap<i32, (Activity, u64)>,
    began: Option<Instant>,
    elapsed: Duration,
    /// The threads in each sample, and whether they were blocked throughout.
    samples: Vec<Vec<(i32, bool)>>,
}

/// The threads of processes, by process.
pub(crate) type Threads = HashMap<i32, Vec<Thread>>;

/// Reads the threads of all processes, each process once.
pub(crate) fn threads(all: &[ThreadSampler]) -> Threads {
    let pids: HashSet<i32> = all.iter().flat_map(|sampler| sampler.pids.iter().copied()).collect();
    pids.into_iter().map(|pid| (pid, Thread::of(pid))).collect()
}

/// One thread over all samples.
#[derive(Debug)]
struct ThreadHistory {
    first: Thread,
    last: Thread,
    activities: HashSet<Activity>,
    times: usize,
    times_running: usize,
}

/// The processor time of the owner's threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Of the busiest thread, as a fraction of one processor.
    pub(crate) cpu: f64,
    pub(crate) never_asleep: bool,
    pub(crate) tid: Option<i32>,
    /// A thread was blocked in a call other than a wait for events, and continued.
    pub(crate) works_in_calls: bool,
}

impl ThreadSampler {
    pub(crate) fn new(holders: &[Holder]) -> Self {
        let mut pids: Vec<i32> = holders.iter().map(|holder| holder.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        let (threads, before) = (HashMap::new(), HashMap::new());
        Self { pids, threads, before, began: None, elapsed: Duration::ZERO, samples: Vec::new() }
    }

    /// Records the threads immediately before a snapshot of the queue.
    pub(crate) fn before(&mut self, threads: &Threads) {
        self.before.clear();
        self.began.get_or_insert_with(Instant::now);
        for thread in self.of(threads) {
            self.before.insert(thread.tid, (thread.activity.clone(), thread.sleeps));
            self.record(thread);
        }
    }

    /// Records the threads immediately after the snapshot. A thread that is blocked both times without a context switch
    /// was blocked throughout. On a loaded machine a sample takes long: a thread that is in the same epoll_wait
    /// both times may have been woken meanwhile, and counts as blocked.
    pub(crate) fn after(&mut self, threads: &Threads) {
        let now = self.of(threads);
        self.elapsed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let slept = |thread: &Thread| {
            let Some((before, sleeps)) = self.before.get(&thread.tid) else { return false };
            let is_same_wait = matches!(before, Activity::EpollWait(Some(_))) && *before == thread.activity;
            is_same_wait || (thread.activity.is_asleep() && before.is_asleep() && *sleeps == thread.sleeps)
        };
        self.samples.push(now.iter().map(|thread| (thread.tid, slept(thread))).collect());
        now.into_iter().for_each(|thread| self.record(thread));
    }

    fn of(&self, threads: &Threads) -> Vec<Thread> {
        self.pids.iter().filter_map(|pid| threads.get(pid)).flatten().cloned().collect()
    }

    fn record(&mut self, thread: Thread) {
        let activity = thread.activity.clone();
        let new = || ThreadHistory {
            first: thread.clone(),
            last: thread.clone(),
            activities: HashSet::new(),
            times: 0,
            times_running: 0,
        };
        let history = self.threads.entry(thread.tid).or_insert_with(new);
        history.last = thread;
        history.times += 1;
        history.times_running += usize::from(activity == Activity::Running);
        history.activities.insert(activity);
    }

    /// Returns, for each sample, whether all threads that wait for the listener's events were blocked; `None`
    /// if there were none.
    ///
    /// These are the threads seen waiting in one of its epoll instances, or else all threads.
    pub(crate) fn asleep(&self, epolls: &[(i32, Vec<i32>)]) -> Vec<Option<bool>> {
        let waits = |history: &ThreadHistory| {
            let own = epolls.iter().filter(|(pid, _)| *pid == history.first.pid);
            let (mut surely, mut perhaps) = (false, false);
            for (_, numbers) in own {
                surely |= history.activities.iter().any(|activity| is_wait_in(activity, numbers));
                perhaps |= history.activities.contains(&Activity::EpollWait(None));
            }
            surely || perhaps
        };
        let waiters: HashSet<i32> =
            self.threads.values().filter(|history| waits(history)).map(|history| history.first.tid).collect();
        let counts = |tid: i32| waiters.is_empty() || waiters.contains(&tid);
        let of_sample = |sample: &Vec<(i32, bool)>| {
            let mut chosen = sample.iter().filter(|(tid, _)| counts(*tid)).peekable();
            chosen.peek().is_some().then(|| chosen.all(|(_, slept)| *slept))
        };
        self.samples.iter().map(of_sample).collect()
    }

    /// Returns the distinct activities of these processes, in a fixed order.
    pub(crate) fn activities(&self, pids: &[i32]) -> Vec<Activity> {
        let mut all: Vec<Activity> =
            self.of_processes(pids).flat_map(|history| history.activities.iter().cloned()).collect();
        all.sort_by_key(|activity| format!("{activity:?}"));
        all.dedup();
        all
    }

    /// Returns what the threads of a process were seen to do, and how many did each. A thread may have done several.
    pub(crate) fn threads_by_activity(&self, pid: i32) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for history in self.of_processes(&[pid]) {
            let names: BTreeSet<_> = history.activities.iter().map(Activity::name).collect();
            names.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        }
        counts.into_iter().collect()
    }

    fn of_processes(&self, pids: &[i32]) -> impl Iterator<Item = &ThreadHistory> {
        self.threads.values().filter(move |history| pids.contains(&history.first.pid))
    }

    /// Returns whether all threads of a process are stopped.
    pub(crate) fn is_stopped(&self, pid: i32) -> bool {
        let pids = [pid];
        let mut threads = self.of_processes(&pids).peekable();
        threads.peek().is_some() && threads.all(|history| history.last.activity == Activity::Stopped)
    }

    /// Returns whether a process is the parent of another one that has the listener open.
    pub(crate) fn is_supervisor(&self, pid: i32) -> bool {
        self.threads.values().any(|history| history.first.parent == pid && history.first.pid != pid)
    }

    /// Returns the threads that ran in at least half of the samples so far and whose waits are surely for this
    /// listener: those seen in one of its epoll instances, and those whose process has no other thread that may wait
    /// for it.
    pub(crate) fn running_waiters(&self, epolls: &[(i32, Vec<i32>)]) -> Vec<Thread> {
        let waits_here = |history: &ThreadHistory| {
            let own = epolls.iter().filter(|(pid, _)| *pid == history.first.pid);
            own.flat_map(|(_, numbers)| numbers)
                .any(|epoll| history.activities.contains(&Activity::EpollWait(Some(*epoll))))
        };
        let waits_elsewhere = |history: &ThreadHistory| {
            let is_other = |activity: &Activity| matches!(activity, Activity::EpollWait(Some(_)));
            !waits_here(history) && history.activities.iter().all(is_other)
        };
        let is_alone = |one: &ThreadHistory| {
            let of_process =
                |other: &&ThreadHistory| other.first.pid == one.first.pid && other.first.tid != one.first.tid;
            self.threads.values().filter(of_process).all(waits_elsewhere)
        };
        let mut found: Vec<&ThreadHistory> =
            self.threads.values().filter(|history| 2 * history.times_running >= history.times).collect();
        found.retain(|history| waits_here(history) || is_alone(history));
        found.sort_by_key(|history| std::cmp::Reverse(history.times_running));
        found.into_iter().map(|history| history.last.clone()).collect()
    }

    /// Returns whether a thread of this process was seen waiting in one of these epoll instances; `None` if
    /// that is unknown.
    pub(crate) fn waits_in(&self, pid: i32, epolls: &[i32]) -> Option<bool> {
        let threads = self.threads.values().filter(|history| history.first.pid == pid);
        let activities: Vec<&Activity> = threads.flat_map(|history| &history.activities).collect();
        let may_wait = |activity: &&&Activity| {
            matches!(
                activity,
                Activity::EpollWait(None) | Activity::Asleep | Activity::Running | Activity::Stopped
            )
        };
        if activities.iter().any(|activity| is_wait_in(activity, epolls)) {
            return Some(true);
        }
        let unknown = activities.is_empty() || activities.iter().any(|activity| may_wait(&activity));
        (!unknown).then_some(false)
    }

    /// Returns how often the socket-waiting threads of these processes were woken.
    pub(crate) fn wakeups(&self, pids: &[i32]) -> u64 {
        let waits = |history: &&ThreadHistory| {
            let is_wait = |activity: &Activity| {
                !matches!(activity, Activity::NonSocketWait | Activity::Other(_) | Activity::Stopped)
            };
            history.activities.iter().any(is_wait)
        };
        let woken = |history: &ThreadHistory| history.last.sleeps.saturating_sub(history.first.sleeps);
        self.of_processes(pids).filter(waits).map(woken).sum()
    }

    /// Returns whether a thread of this process is blocked in accept on the listener.
    pub(crate) fn accepts_on(&self, pid: i32, holders: &[Holder]) -> bool {
        let on_it = |fd: i32| holders.iter().any(|holder| (holder.pid, holder.fd) == (pid, fd));
        self.of_processes(&[pid]).any(|history| {
            history.activities.iter().any(|activity| match activity {
                Activity::Accept(Some(fd)) => on_it(*fd),
                Activity::Accept(None) => true,
                _ => false,
            })
        })
    }

    pub(crate) fn load(&self, pids: &[i32]) -> Load {
        let mut load = Load::default();
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        for history in self.of_processes(pids) {
            let user = share(history.first.user, history.last.user, seconds);
            let system = share(history.first.system, history.last.system, seconds);
            // A short-lived thread had no chance to block. Each sample records a thread twice.
            let is_lasting = history.times >= self.samples.len();
            let never_asleep =
                is_lasting && history.activities.iter().all(|activity| *activity == Activity::Running);
            // On a loaded machine a thread that never blocks may get little processor time.
            if (never_asleep, user + system) >= (load.never_asleep, load.cpu) {
                (load.cpu, load.never_asleep) = (user + system, never_asleep);
                load.tid = Some(history.first.tid);
            }
            let in_a_call = history.activities.iter().any(|activity| matches!(activity, Activity::Other(_)));
            load.works_in_calls |= in_a_call && history.last.sleeps != history.first.sleeps;
        }
        load
    }
}

/// Returns whether the thread waits in one of these epoll instances.
fn is_wait_in(activity: &Activity, epolls: &[i32]) -> bool {
    matches!(activity, Activity::EpollWait(Some(epoll)) if epolls.contains(epoll))
}

/// Converts clock ticks to a fraction of one processor.
#[expect(clippy::cast_precision_loss, reason = "the ticks of a few seconds")]
fn share(first: u64, last: u64, seconds: f64) -> f64 {
    last.saturating_sub(first) as f64 / procfs::ticks_per_second() as f64 / seconds
}
