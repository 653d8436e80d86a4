//! The world of a run: the script that plays around every call of an acceptor, and the checker.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::acceptor_under_test::{Handle, Subject};
use super::checker::{Checker, Violation};
use super::script::{Action, Call, Script};
use crate::admission::clock::Clock;
use crate::drain::errno::{Errno, ErrnoClass};

/// The kernel under a run: the simulated one, or a real one that replays a script.
pub trait Stage: Send {
    /// A client connects to a listener; `false` if it could not.
    fn connect(&mut self, listener: usize) -> bool;
    /// First step of a connect in two (K3): the connection is queued, and can be accepted.
    fn insert(&mut self, listener: usize) -> bool;
    /// Second step: the listener wakes its watchers for the oldest inserted connection; `false` if there is none.
    fn tell(&mut self, listener: usize) -> bool;
    /// Of the clients that have not left, the one queued longest closes its connection ...
    fn quit(&mut self, listener: usize);
    /// ... or resets it.
    fn reset(&mut self, listener: usize);
    /// Another process accepts a connection and closes it; `false` if there was none.
    fn steal(&mut self, listener: usize) -> bool;
    /// The listener is shut down.
    fn shut(&mut self, listener: usize);
    /// How many connections are queued.
    fn queued(&self, listener: usize) -> u32;
    /// A wait on an acceptor's epoll that does not block: how many events it returned.
    fn wait(&mut self, acceptor: usize) -> usize;
    /// Time passes.
    fn advance(&mut self, by: Duration);
}

/// The world of one run; clones are the same.
#[derive(Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    /// The time in nanoseconds, readable while the world is locked.
    now: Arc<AtomicU64>,
}

/// The time of a run.
#[derive(Clone)]
pub(super) struct SimClock(Arc<AtomicU64>);

impl SimClock {
    pub(super) fn of(world: &World) -> Self {
        Self(Arc::clone(&world.now))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

pub(super) struct Inner {
    pub(super) stage: Box<dyn Stage>,
    pub(super) checker: Checker,
    now: Arc<AtomicU64>,
    script: VecDeque<(u32, Action)>,
    /// The points passed; `None` before all is built, and after the run.
    point: Option<u32>,
    /// The point by which the current pass must have ended.
    pass_ends_by: Option<u32>,
    /// The acceptors; `None` while one is in the middle of a pass.
    pub(super) subjects: Vec<Option<Box<dyn Subject>>>,
    controls: Vec<Option<Arc<dyn Handle>>>,
    /// Connections in service, the oldest first.
    held: VecDeque<Box<dyn Any + Send>>,
    set_limit: Option<Arc<SetLimit>>,
    /// How many permits the gate says are in use.
    in_use: Option<CountPermits>,
    one_listener: bool,
    descriptors_max: Option<u64>,
    /// Reserve descriptors that were released and not taken since.
    reserves_released: u64,
    failures: VecDeque<Errno>,
    failing_calls: VecDeque<Call>,
    /// Acceptors that their owners drop when the pass is over.
    leaving: BTreeSet<usize>,
}

/// How many permits one of the gates says are in use.
type CountPermits = Box<dyn Fn(usize) -> Option<u32> + Send>;

/// Changes the limit of one of the gates.
type SetLimit = dyn Fn(usize, u32) + Send + Sync;

/// The panic that unwinds out of a pass that does not end.
struct Endless;

/// The maximum number of points of one pass, including the passes inside it: far more than any finite pass needs.
const POINTS_MAX: u32 = 20_000;

/// The time that a `Tick` takes when no alarm is set.
const A_WHILE: Duration = Duration::from_millis(5);

impl World {
    /// Creates a world on a stage, with a script to play.
    pub(super) fn new(stage: Box<dyn Stage>, script: &Script, one_listener: bool) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let inner = Inner {
            stage,
            checker: Checker::default(),
            now: Arc::clone(&now),
            script: script.acts().iter().copied().collect(),
            point: None,
            pass_ends_by: None,
            subjects: Vec::new(),
            controls: Vec::new(),
            held: VecDeque::new(),
            set_limit: None,
            in_use: None,
            one_listener,
            descriptors_max: None,
            reserves_released: 0,
            failures: VecDeque::new(),
            failing_calls: VecDeque::new(),
            leaving: BTreeSet::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), now }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_subject(&self, subject: Box<dyn Subject>) {
        let mut inner = self.lock();
        inner.controls.push(subject.control());
        inner.subjects.push(Some(subject));
    }

    /// All is built: points count from here.
    pub(super) fn start(&self) {
        self.lock().point = Some(0);
    }

    /// Ends the run: drops the connections and acceptors; no point does anything any more.
    pub(super) fn dismiss(&self) {
        let (held, subjects, controls) = {
            let mut inner = self.lock();
            inner.point = None;
            inner.set_limit = None;
            inner.in_use = None;
            let controls = std::mem::take(&mut inner.controls);
            (std::mem::take(&mut inner.held), std::mem::take(&mut inner.subjects), controls)
        };
        drop(controls);
        drop(held);
        drop(subjects);
    }

    pub(super) fn on_limit(&self, set: Arc<SetLimit>) {
        self.lock().set_limit = Some(set);
    }

    pub(super) fn on_count(&self, in_use: CountPermits) {
        self.lock().in_use = Some(in_use);
    }

    /// A point of the run: plays what the script has for it, with no lock held.
    ///
    /// Unwinds out of a pass that does not end, by [`Endless`].
    pub(super) fn yield_point(&self) {
        let mut inner = self.lock();
        let Some(point) = inner.point else { return };
        inner.point = Some(point + 1);
        if inner.pass_ends_by.is_some_and(|last| point > last) && !std::thread::panicking() {
            inner.checker.violate("P2", "a pass does not end");
            drop(inner);
            resume_unwind(Box::new(Endless));
        }
        while let Some(act) = inner.due() {
            drop(inner);
            self.act(act);
            inner = self.lock();
        }
    }

    pub(super) fn points(&self) -> u32 {
        self.lock().point.unwrap_or(0)
    }

    pub(super) fn script_is_done(&self) -> bool {
        self.lock().script.is_empty()
    }

    pub(super) fn act(&self, act: Action) {
        let mut inner = self.lock();
        inner.checker.on_action(act);
        match act {
            Action::Connect(listener) => {
                if inner.stage.connect(listener) {
                    inner.checker.arrived += 1;
                }
            }
            Action::Insert(listener) => {
                if inner.stage.insert(listener) {
                    inner.checker.arrived += 1;
                    inner.checker.unreported += 1;
                }
            }
            Action::Tell(listener) => {
                if inner.stage.tell(listener) {
                    inner.checker.unreported -= 1;
                }
            }
            Action::Quit(listener) => inner.stage.quit(listener),
            Action::Reset(listener) => inner.stage.reset(listener),
            Action::Steal(listener) => {
                if inner.stage.steal(listener) {
                    inner.checker.stolen += 1;
                }
            }
            Action::Shut(listener) => {
                inner.stage.shut(listener);
                inner.checker.shut_down.insert(listener);
            }
            Action::Exhaust => {
                inner.descriptors_max = Some(inner.checker.open());
                inner.reserves_released = 0;
            }
            Action::Relieve => inner.descriptors_max = None,
            Action::FailCall(call) => inner.failing_calls.push_back(call),
            Action::Fail(errno) => {
                inner.checker.fatal_injected |= errno.class() == ErrnoClass::Fatal;
                inner.failures.push_back(errno);
            }
            Action::Tick => {
                let by = inner.checker.next_alarm().unwrap_or(A_WHILE);
                inner.pass_time(by);
            }
            Action::Free => {
                let ended = inner.held.pop_front();
                drop(inner);
                drop(ended);
            }
            Action::Limit(limit) => {
                drop(inner);
                self.limit(limit);
            }
            Action::Drop(acceptor) => {
                inner.leaving.insert(acceptor);
                drop(inner);
                self.leave(acceptor);
            }
            Action::Pause(_) | Action::Resume(_) | Action::Stop(_) => {
                drop(inner);
                self.command(act);
            }
            Action::Turn(acceptor) => {
                drop(inner);
                self.turn(acceptor);
            }
        }
    }

    /// Changes the limit of every gate.
    fn limit(&self, limit: u32) {
        let inner = self.lock();
        let (set, gates) = (inner.set_limit.clone(), inner.checker.gates.len());
        drop(inner);
        // One by one: an acceptor that is woken may change them all in between.
        for gate in 0..gates {
            self.lock().checker.on_limit_changed(gate, limit);
            set.iter().for_each(|set| set(gate, limit));
            self.lock().check_latch(gate, false);
        }
    }

    fn command(&self, act: Action) {
        let (Action::Pause(acceptor) | Action::Resume(acceptor) | Action::Stop(acceptor)) = act else {
            return;
        };
        let control = {
            let mut inner = self.lock();
            inner.checker.on_command(acceptor, act);
            inner.controls.get(acceptor).cloned().flatten()
        };
        match (act, control) {
            (Action::Pause(_), Some(control)) => control.pause(),
            (Action::Resume(_), Some(control)) => control.resume(),
            (Action::Stop(_), Some(control)) => control.stop(),
            _ => {}
        }
    }

    /// One acceptor waits without blocking, and begins a pass for each event. Returns whether there were any.
    pub(super) fn turn(&self, acceptor: usize) -> bool {
        let (subject, events) = {
            let mut inner = self.lock();
            let Some(subject) = inner.subjects.get_mut(acceptor).and_then(Option::take) else { return false };
            let events = inner.stage.wait(acceptor);
            inner.checker.on_wait(acceptor, events);
            (subject, events)
        };
        let mut subject = subject;
        for _ in 0..events {
            self.yield_point();
            if self.lock().leaving.contains(&acceptor) {
                break;
            }
            let told = self.pass(acceptor, &mut *subject);
            let mut inner = self.lock();
            let listener = inner.listener_of(acceptor);
            inner.checker.on_pass_end(acceptor, listener, told, subject.is_in_pass());
        }
        self.lock().subjects[acceptor] = Some(subject);
        self.leave(acceptor);
        events > 0
    }

    /// Drops an acceptor that is in `leaving`, unless it is in the middle of a pass.
    fn leave(&self, acceptor: usize) {
        let (subject, control) = {
            let mut inner = self.lock();
            if !inner.leaving.contains(&acceptor) {
                return;
            }
            let Some(subject) = inner.subjects.get_mut(acceptor).and_then(Option::take) else { return };
            inner.checker.on_drop(acceptor, subject.counters().as_ref());
            let control = inner.controls[acceptor].take();
            (subject, control)
        };
        drop(subject);
        drop(control);
    }

    /// Runs a pass; returns whether the owner was told that the listener is closed.
    fn pass(&self, acceptor: usize, subject: &mut dyn Subject) -> bool {
        let outermost = {
            let mut inner = self.lock();
            inner.checker.on_pass_begin(acceptor, subject.is_in_pass());
            let last = inner.point.unwrap_or(0).saturating_add(POINTS_MAX);
            inner.pass_ends_by.is_none() && inner.pass_ends_by.replace(last).is_none()
        };
        let told = catch_unwind(AssertUnwindSafe(|| subject.pass(&mut |connection| self.keep(connection))));
        if outermost {
            self.lock().pass_ends_by = None;
        }
        match told {
            Ok(told) => told,
            Err(thrown) if outermost && thrown.is::<Endless>() => false,
            Err(thrown) => resume_unwind(thrown),
        }
    }

    fn keep(&self, connection: Box<dyn Any + Send>) {
        let mut inner = self.lock();
        inner.held.push_back(connection);
    }

    /// Whether the next call of this kind fails.
    pub(super) fn fails(&self, call: Call) -> Option<Errno> {
        let mut inner = self.lock();
        let at = inner.failing_calls.iter().position(|failing| *failing == call)?;
        inner.failing_calls.remove(at);
        inner.checker.on_failed_call();
        Some(Errno::new(libc::ENOMEM))
    }

    /// Whether the next accept fails before it looks at the queue, as the kernel's does (K50, K51).
    pub(super) fn fails_before_accept(&self) -> Option<Errno> {
        let mut inner = self.lock();
        let failure = inner.failures.front().copied().filter(|errno| errno.class() != ErrnoClass::Consumed);
        if failure.is_some() {
            inner.failures.pop_front();
            return failure;
        }
        let open = inner.checker.open();
        let max = inner.descriptors_max.map(|max| max + inner.reserves_released);
        max.filter(|max| open >= *max).map(|_| Errno::new(libc::EMFILE))
    }

    /// Whether an accept that found a connection loses it.
    pub(super) fn fails_after_accept(&self) -> Option<Errno> {
        let mut inner = self.lock();
        let errno = inner.failures.front().copied().filter(|errno| errno.class() == ErrnoClass::Consumed)?;
        inner.failures.pop_front();
        Some(errno)
    }

    /// Ends the script and every shortage, and reports every arrival.
    pub(super) fn calm(&self) {
        let mut inner = self.lock();
        inner.script.clear();
        for acceptor in 0..inner.subjects.len() {
            let listener = inner.listener_of(acceptor);
            while inner.stage.tell(listener) {}
        }
        inner.checker.unreported = 0;
        inner.failures.clear();
        inner.failing_calls.clear();
        inner.descriptors_max = None;
    }

    pub(super) fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// How many permits the gates say are in use, if they do.
    pub(super) fn in_use(&self) -> Option<u32> {
        let inner = self.lock();
        let in_use = inner.in_use.as_ref()?;
        (0..inner.checker.gates.len()).map(in_use).sum()
    }

    pub(super) fn violated(&self) -> Option<Violation> {
        self.lock().checker.violation()
    }
}

impl Inner {
    /// The next action of the script, if its point has passed.
    fn due(&mut self) -> Option<Action> {
        let (point, act) = *self.script.front()?;
        if point >= self.point? {
            return None;
        }
        self.script.pop_front();
        Some(act)
    }

    pub(super) fn on_permit_taken(&mut self, gate: usize) {
        self.checker.on_permit_taken(gate);
        self.check_latch(gate, false);
    }

    /// Reports a change of a gate's permits to the checker.
    pub(super) fn check_latch(&mut self, gate: usize, unused: bool) {
        let in_use = self.in_use_of(gate);
        self.checker.on_permits_in_use(gate, in_use, unused);
    }

    pub(super) fn on_permit_released(&mut self, gate: usize) {
        let in_use = self.in_use_of(gate);
        // Once with the count as it is, and once with the count before the permit is handed to a waiter.
        self.checker.on_permits_in_use(gate, in_use, false);
        self.checker.on_permits_in_use(gate, in_use.saturating_sub(1), false);
        if in_use <= self.checker.gates[gate].limit {
            self.checker.on_queue_moves(gate);
        }
        self.checker.on_permit_returned(gate);
    }

    /// How many permits of a gate are in use: by its own count, or else the checker's.
    fn in_use_of(&self, gate: usize) -> u32 {
        let reported = self.in_use.as_ref().and_then(|in_use| in_use(gate));
        reported.unwrap_or(self.checker.gates[gate].in_use)
    }

    /// A descriptor becomes free for the next call that needs one.
    pub(super) fn release_reserve(&mut self, acceptor: usize) {
        self.reserves_released += 1;
        self.checker.may_retry_once(acceptor);
    }

    /// Takes a descriptor as reserve, if one is free.
    pub(super) fn make_reserve(&mut self) -> bool {
        let open = self.checker.open();
        let free = self.descriptors_max.is_none_or(|max| open < max + self.reserves_released);
        self.reserves_released = self.reserves_released.saturating_sub(u64::from(free));
        free
    }

    fn pass_time(&mut self, by: Duration) {
        self.stage.advance(by);
        self.now.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.checker.pass_time(by);
    }

    /// How many connections are queued where an acceptor accepts.
    pub(super) fn queued_at(&self, acceptor: usize) -> u32 {
        self.stage.queued(self.listener_of(acceptor))
    }

    pub(super) fn listener_of(&self, acceptor: usize) -> usize {
        if self.one_listener { 0 } else { acceptor }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
