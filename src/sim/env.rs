//! The environment: what may happen around every call through the seam, and the books that are kept of it.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ledger::{Ledger, Violation};
use super::script::{Action, Script};
use super::subject::{Handle, Subject};
use super::visitors::Visitors;
use crate::admission::refusal::Rejection;
use crate::drain::errno::{Errno, ErrnoClass};

/// The kernel under an environment: the simulated one, or a real one that replays a script.
pub trait Stage: Send {
    /// A client connects to a listener; `false` if it could not.
    fn connect(&mut self, listener: usize) -> bool;
    /// The same in two steps: the connection is queued, and can be accepted ...
    fn insert(&mut self, listener: usize) -> bool;
    /// ... and then whoever watches the listener is told of the oldest that is queued so.
    /// `false` if there is none.
    fn tell(&mut self, listener: usize) -> bool;
    /// The client whose connection is queued longest quits, if it has not yet.
    fn quit(&mut self, listener: usize);
    /// It resets its connection.
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

/// One environment; clones are the same.
#[derive(Clone)]
pub struct Env(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub(super) stage: Box<dyn Stage>,
    pub(super) ledger: Ledger,
    pub(super) visitors: Visitors,
    script: VecDeque<(u32, Action)>,
    /// The points passed; none before everything is built, nor after the run.
    point: Option<u32>,
    /// The point by which the pass that is going on has to be over.
    pass_ends_by: Option<u32>,
    /// The acceptors; `None` while one is in the middle of its turn.
    pub(super) subjects: Vec<Option<Box<dyn Subject>>>,
    controls: Vec<Option<Arc<dyn Handle>>>,
    /// Connections in service, the oldest first.
    held: VecDeque<Box<dyn Any + Send>>,
    set_limit: Option<Arc<SetLimit>>,
    /// How many places the gate says are taken.
    in_use: Option<CountPlaces>,
    one_listener: bool,
    descriptors_max: Option<u64>,
    /// Reserve descriptors that were given up, and not taken by anybody else.
    reserves_up: u64,
    failures: VecDeque<Errno>,
    /// Acceptors whose owners drop them when their turn is over.
    leaving: BTreeSet<usize>,
}

/// How many places one of the gates says are taken.
type CountPlaces = Box<dyn Fn(usize) -> Option<u32> + Send>;

/// Changes the limit of one of the gates.
type SetLimit = dyn Fn(usize, u32) + Send + Sync;

/// InjectedPanic out of a pass that does not end.
struct Endless;

/// Points within one pass, those of others in between counted: far more than any that ends.
const POINTS_MAX: u32 = 20_000;

/// What a Tick passes when no alarm is set.
const A_WHILE: Duration = Duration::from_millis(5);

impl Env {
    /// An environment on a stage, with a script to play.
    pub(super) fn new(stage: Box<dyn Stage>, script: &Script, one_listener: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stage,
            ledger: Ledger::default(),
            visitors: Visitors::default(),
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
            reserves_up: 0,
            failures: VecDeque::new(),
            leaving: BTreeSet::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_subject(&self, subject: Box<dyn Subject>) {
        let mut inner = self.lock();
        inner.controls.push(subject.control());
        inner.subjects.push(Some(subject));
    }

    /// Everything is built: points count from here.
    pub(super) fn start(&self) {
        self.lock().point = Some(0);
    }

    /// The run is over: the connections and acceptors are dropped, and no point does anything any more.
    pub(super) fn dismiss(&self) {
        let (held, subjects) = {
            let mut inner = self.lock();
            inner.point = None;
            inner.set_limit = None;
            inner.in_use = None;
            inner.controls.clear();
            (std::mem::take(&mut inner.held), std::mem::take(&mut inner.subjects))
        };
        drop(held);
        drop(subjects);
    }

    pub(super) fn on_limit(&self, set: Arc<SetLimit>) {
        self.lock().set_limit = Some(set);
    }

    pub(super) fn on_count(&self, in_use: CountPlaces) {
        self.lock().in_use = Some(in_use);
    }

    /// A point of the run: whatever the script has for it happens here, with no lock held.
    ///
    /// Throws [`Endless`] out of a pass that does not end.
    pub(super) fn point(&self) {
        {
            let mut inner = self.lock();
            let Some(point) = inner.point else { return };
            inner.point = Some(point + 1);
            if inner.pass_ends_by.is_some_and(|last| point > last) && !std::thread::panicking() {
                inner.ledger.violate("P2", "a pass does not end");
                drop(inner);
                resume_unwind(Box::new(Endless));
            }
        }
        loop {
            let act = {
                let mut inner = self.lock();
                let passed = inner.point.unwrap_or(0);
                match inner.script.front() {
                    Some((point, _)) if *point < passed => inner.script.pop_front(),
                    _ => None,
                }
            };
            match act {
                Some((_, act)) => self.act(act),
                None => return,
            }
        }
    }

    pub(super) fn points(&self) -> u32 {
        self.lock().point.unwrap_or(0)
    }

    pub(super) fn script_is_done(&self) -> bool {
        self.lock().script.is_empty()
    }

    /// Does one act.
    pub(super) fn act(&self, act: Action) {
        let mut inner = self.lock();
        inner.ledger.acted(act);
        match act {
            Action::Connect(listener) => {
                if inner.stage.connect(listener) {
                    inner.ledger.arrived += 1;
                }
            }
            Action::Insert(listener) => {
                if inner.stage.insert(listener) {
                    inner.ledger.arrived += 1;
                    inner.ledger.untold += 1;
                }
            }
            Action::Tell(listener) => {
                if inner.stage.tell(listener) {
                    inner.ledger.untold -= 1;
                }
            }
            Action::Quit(listener) => inner.stage.quit(listener),
            Action::Reset(listener) => inner.stage.reset(listener),
            Action::Steal(listener) => {
                if inner.stage.steal(listener) {
                    inner.ledger.stolen += 1;
                }
            }
            Action::Shut(listener) => {
                inner.stage.shut(listener);
                inner.ledger.shut.insert(listener);
            }
            Action::Exhaust => {
                inner.descriptors_max = Some(inner.ledger.open());
                inner.reserves_up = 0;
            }
            Action::Relieve => inner.descriptors_max = None,
            Action::Fail(errno) => {
                inner.ledger.doomed |= errno.class() == ErrnoClass::Fatal;
                inner.failures.push_back(errno);
            }
            Action::Tick => {
                let by = inner.ledger.next_alarm().unwrap_or(A_WHILE);
                inner.pass_time(by);
            }
            Action::Free => {
                let ended = inner.held.pop_front();
                drop(inner);
                drop(ended);
            }
            Action::Limit(limit) => {
                let (set, gates) = (inner.set_limit.clone(), inner.ledger.gates.len());
                drop(inner);
                // One by one: whoever is rung may change them all in between.
                for gate in 0..gates {
                    self.lock().ledger.changes_limit(gate, limit);
                    set.iter().for_each(|set| set(gate, limit));
                    self.lock().looks_at_places(gate, false);
                }
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

    fn command(&self, act: Action) {
        let (Action::Pause(acceptor) | Action::Resume(acceptor) | Action::Stop(acceptor)) = act else {
            return;
        };
        let control = {
            let mut inner = self.lock();
            inner.ledger.command(acceptor, act);
            inner.controls.get(acceptor).cloned().flatten()
        };
        match (act, control) {
            (Action::Pause(_), Some(control)) => control.pause(),
            (Action::Resume(_), Some(control)) => control.resume(),
            (Action::Stop(_), Some(control)) => control.stop(),
            _ => {}
        }
    }

    /// One acceptor waits without blocking, and has its passes if that returned events. Tells whether it did.
    pub(super) fn turn(&self, acceptor: usize) -> bool {
        let (subject, events) = {
            let mut inner = self.lock();
            let Some(subject) = inner.subjects.get_mut(acceptor).and_then(Option::take) else { return false };
            let events = inner.stage.wait(acceptor);
            inner.ledger.waited(acceptor, events);
            (subject, events)
        };
        let mut subject = subject;
        for _ in 0..events {
            self.point();
            if self.lock().leaving.contains(&acceptor) {
                break;
            }
            let told = self.pass(acceptor, &mut *subject);
            let mut inner = self.lock();
            let listener = inner.listener_of(acceptor);
            inner.ledger.pass_ends(acceptor, listener, told);
        }
        self.lock().subjects[acceptor] = Some(subject);
        self.leave(acceptor);
        events > 0
    }

    /// Drops an acceptor whose owner wants to, unless it is in the middle of its turn.
    fn leave(&self, acceptor: usize) {
        let subject = {
            let mut inner = self.lock();
            if !inner.leaving.contains(&acceptor) {
                return;
            }
            let Some(subject) = inner.subjects.get_mut(acceptor).and_then(Option::take) else { return };
            inner.ledger.goes(acceptor, subject.counters().as_ref());
            inner.controls[acceptor] = None;
            subject
        };
        drop(subject);
    }

    /// One pass; tells whether the owner was told that the listener is dead.
    fn pass(&self, acceptor: usize, subject: &mut dyn Subject) -> bool {
        let outermost = {
            let mut inner = self.lock();
            inner.ledger.pass_begins(acceptor);
            let last = inner.point.unwrap_or(0).saturating_add(POINTS_MAX);
            inner.pass_ends_by.is_none() && inner.pass_ends_by.replace(last).is_none()
        };
        let told = catch_unwind(AssertUnwindSafe(|| subject.turn(&mut |connection| self.keep(connection))));
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

    /// Whether the next accept fails without a look at the queue, as the kernel's does (K50, K51).
    pub(super) fn fails_first(&self) -> Option<Errno> {
        let mut inner = self.lock();
        let failure = inner.failures.front().copied().filter(|errno| errno.class() != ErrnoClass::Consumed);
        if failure.is_some() {
            inner.failures.pop_front();
            return failure;
        }
        let open = inner.ledger.open();
        let max = inner.descriptors_max.map(|max| max + inner.reserves_up);
        max.filter(|max| open >= *max).map(|_| Errno::new(libc::EMFILE))
    }

    /// Whether an accept that found a connection loses it.
    pub(super) fn fails_after(&self) -> Option<Errno> {
        let mut inner = self.lock();
        let errno = inner.failures.front().copied().filter(|errno| errno.class() == ErrnoClass::Consumed)?;
        inner.failures.pop_front();
        Some(errno)
    }

    /// Everything that stood in the way ends: what is left of the script, and all scarcity.
    pub(super) fn calm(&self) {
        let mut inner = self.lock();
        inner.script.clear();
        for acceptor in 0..inner.subjects.len() {
            let listener = inner.listener_of(acceptor);
            while inner.stage.tell(listener) {}
        }
        inner.ledger.untold = 0;
        inner.failures.clear();
        inner.descriptors_max = None;
    }

    pub(super) fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// How many places the gates say are taken, if they say so.
    pub(super) fn in_use(&self) -> Option<u32> {
        let inner = self.lock();
        let in_use = inner.in_use.as_ref()?;
        (0..inner.ledger.gates.len()).map(in_use).sum()
    }

    pub(super) fn violated(&self) -> Option<Violation> {
        let mut inner = self.lock();
        let visitors = inner.visitors.violation();
        inner.ledger.violation.clone().or(visitors)
    }
}

impl Inner {
    /// A policy said whether what an acceptor has in hand may come in. Whom it let in, if the case has a rule for that.
    pub(super) fn answers(&mut self, acceptor: usize, answer: &Result<(), Rejection>) -> Option<u64> {
        let now = self.ledger.now();
        match answer {
            Ok(()) => self.visitors.lets_in(acceptor, now),
            Err(denied) => {
                self.ledger.denies(acceptor);
                self.visitors.denies(acceptor, now, denied);
                None
            }
        }
    }

    /// The place of a visitor has come back.
    pub(super) fn visitor_goes(&mut self, visitor: Option<u64>) {
        if let Some(serial) = visitor {
            self.visitors.gives_place(serial);
        }
    }

    pub(super) fn takes_place(&mut self, gate: usize) {
        self.ledger.takes_place(gate);
        self.looks_at_places(gate, false);
    }

    /// After something has become of the places of a gate.
    pub(super) fn looks_at_places(&mut self, gate: usize, unused: bool) {
        let in_use = self.in_use_of(gate);
        self.ledger.places_are_out(gate, in_use, unused);
    }

    pub(super) fn place_comes_back(&mut self, gate: usize) {
        let in_use = self.in_use_of(gate);
        // As it is, and as it will be before the place is handed to anybody.
        self.ledger.places_are_out(gate, in_use, false);
        self.ledger.places_are_out(gate, in_use.saturating_sub(1), false);
        if in_use <= self.ledger.gates[gate].limit {
            self.ledger.line_moves(gate);
        }
        self.ledger.gives_place(gate);
    }

    /// How many places of a gate are out, as it says itself if it does.
    fn in_use_of(&self, gate: usize) -> u32 {
        let told = self.in_use.as_ref().and_then(|in_use| in_use(gate));
        told.unwrap_or(self.ledger.gates[gate].taken)
    }

    /// A descriptor becomes free for whoever is next.
    pub(super) fn gives_reserve_up(&mut self, acceptor: usize) {
        self.reserves_up += 1;
        self.ledger.may_try_once_more(acceptor);
    }

    /// Takes a descriptor in reserve, if there is one.
    pub(super) fn makes_reserve(&mut self) -> bool {
        let open = self.ledger.open();
        let free = self.descriptors_max.is_none_or(|max| open < max + self.reserves_up);
        self.reserves_up = self.reserves_up.saturating_sub(u64::from(free));
        free
    }

    fn pass_time(&mut self, by: Duration) {
        self.stage.advance(by);
        self.ledger.pass_time(by);
    }

    /// How many connections are queued where an acceptor accepts.
    pub(super) fn queued_at(&self, acceptor: usize) -> u32 {
        self.stage.queued(self.listener_of(acceptor))
    }

    /// The listener an acceptor accepts from.
    pub(super) fn listener_of(&self, acceptor: usize) -> usize {
        if self.one_listener { 0 } else { acceptor }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}
