//! A connection limit in replaceable pieces, each a pure function of the state under the lock.
//!
//! Untouched ([`Sound`]) it does what the crate's gate does. A mutant replaces one piece.

use std::collections::{BTreeSet, VecDeque};
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use epoll_acceptor::admission::Bell;
use epoll_acceptor::admission::Until;
use epoll_acceptor::sim::Limited;
use epoll_acceptor::{Admission, Cause, Line, Rejection, Reserve, WhenFull};

/// What is known under the lock.
#[derive(Default)]
pub(crate) struct State {
    pub limit: u32,
    pub in_use: u32,
    /// Who waits, in the order in which they came.
    pub line: VecDeque<Waiter>,
    /// Who has been rung for a place that is kept for it.
    pub handed: Vec<Arc<Bell>>,
    /// Whatever a mutant has to remember.
    pub memory: u32,
    pub pending: BTreeSet<u32>,
}

/// An acceptor that waits for room, or for anything given back.
pub(crate) struct Waiter {
    pub bell: Arc<Bell>,
    pub until: Until,
    pub who: u32,
}

/// Who is to be rung once the lock is gone.
pub(crate) type Rung = Vec<Arc<Bell>>;

/// The pieces of a gate, right as they stand here.
pub(crate) trait Flaw: Send + Sync + 'static {
    /// Whether bells are rung with the lock held.
    const RINGS_LOCKED: bool = false;

    fn built(_state: &mut State) {}

    fn has_room(state: &State) -> bool {
        state.in_use < state.limit
    }

    /// Takes a place for acceptor `who`, if there is one.
    fn take(state: &mut State, _who: u32) -> bool {
        let room = Self::has_room(state);
        state.in_use += u32::from(room);
        room
    }

    /// A connection was refused because nothing was to be had.
    fn refused(_state: &mut State) {}

    /// A place comes back.
    fn give(state: &mut State, given: Until) -> Rung {
        state.in_use = state.in_use.wrapping_sub(1);
        Self::wake(state, given)
    }

    /// A place comes back that was not used.
    fn cancel(state: &mut State) -> Rung {
        Self::give(state, Until::Room)
    }

    /// Whom to ring for what the state has become.
    fn wake(state: &mut State, given: Until) -> Rung {
        if Self::has_room(state) { Self::ring(state, given) } else { Rung::new() }
    }

    /// Takes everybody concerned out of the line; who waited for room has a place kept for it.
    fn ring(state: &mut State, given: Until) -> Rung {
        let mut rung = Rung::new();
        for waiter in std::mem::take(&mut state.line) {
            let concerned = match waiter.until {
                Until::Room => Self::take(state, waiter.who),
                Until::Release => given == Until::Release,
            };
            if !concerned {
                state.line.push_back(waiter);
                continue;
            }
            if waiter.until == Until::Room {
                state.handed.push(Arc::clone(&waiter.bell));
            }
            rung.push(waiter.bell);
        }
        rung
    }

    fn stand(state: &mut State, waiter: Waiter) -> Line {
        if waiter.until == Until::Room && Self::has_room(state) {
            return Line::Room;
        }
        Self::enqueue(state, waiter);
        Line::Standing
    }

    fn enqueue(state: &mut State, waiter: Waiter) {
        state.line.push_back(waiter);
    }

    fn limit(state: &mut State, limit: u32) -> Rung {
        state.limit = limit;
        Self::wake(state, Until::Release)
    }
}

impl Waiter {
    pub(crate) fn waits_for(&self, given: Until) -> bool {
        given == Until::Release || self.until == given
    }
}

/// The gate as it should be.
pub(crate) struct Sound;

impl Flaw for Sound {}

/// InjectedPanic by who would wait for itself.
pub(crate) struct Deadlock;

/// A gate with one piece replaced. Clones are the same gate, seen by another acceptor.
pub(crate) struct Hall<F> {
    shared: Arc<Shared>,
    when_full: WhenFull,
    who: u32,
    flaw: PhantomData<fn() -> F>,
}

struct Shared {
    state: Mutex<State>,
    clones: AtomicU32,
}

/// A place behind a [`Hall`].
pub(crate) struct Seat<F: Flaw> {
    hall: Option<Hall<F>>,
}

impl<F: Flaw> Hall<F> {
    /// In a test of one thread, who finds the lock taken holds it.
    fn lock(&self) -> MutexGuard<'_, State> {
        match self.shared.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => resume_unwind(Box::new(Deadlock)),
        }
    }

    /// Whether a place was kept for who rings this bell; not if the limit has been lowered below it.
    fn claim(state: &mut State, bell: &Arc<Bell>) -> bool {
        let Some(at) = state.handed.iter().position(|handed| Arc::ptr_eq(handed, bell)) else { return false };
        state.handed.remove(at);
        let kept = state.in_use <= state.limit;
        state.in_use -= u32::from(!kept);
        kept
    }

    fn seat(&self) -> Seat<F> {
        Seat { hall: Some(self.clone()) }
    }

    /// Changes the state, and rings with no lock held.
    fn change(&self, change: impl FnOnce(&mut State) -> Rung) {
        let mut state = self.lock();
        let rung = change(&mut state);
        let state = F::RINGS_LOCKED.then_some(state);
        rung.iter().for_each(|bell| bell.ring());
        drop(state);
    }
}

impl<F: Flaw> Limited for Hall<F> {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        let mut state = State { limit, ..State::default() };
        F::built(&mut state);
        let shared = Shared { state: Mutex::new(state), clones: AtomicU32::new(0) };
        Self { shared: Arc::new(shared), when_full, who: 0, flaw: PhantomData }
    }

    fn change_limit(&self, limit: u32) {
        self.change(|state| F::limit(state, limit));
    }

    fn in_use(&self) -> Option<u32> {
        let state = self.lock();
        Some(state.in_use + u32::try_from(state.pending.len()).expect("a few"))
    }
}

impl<F: Flaw> Admission for Hall<F> {
    type Permit = Seat<F>;

    fn reserve(&self) -> Reserve<Seat<F>> {
        let mut state = self.lock();
        if F::take(&mut state, self.who) {
            return Reserve::Room(self.seat());
        }
        match &self.when_full {
            WhenFull::Shed(refusal) => {
                F::refused(&mut state);
                Reserve::Shed(Rejection::new(Cause::Full, refusal.clone()))
            }
            _ => Reserve::Full,
        }
    }

    fn cancel(&self, mut seat: Seat<F>) {
        seat.hall = None;
        self.change(F::cancel);
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        let mut state = self.lock();
        if state.handed.iter().any(|handed| Arc::ptr_eq(handed, bell)) && state.in_use <= state.limit {
            return Line::Turn;
        }
        Self::claim(&mut state, bell);
        state.line.retain(|waiter| !Arc::ptr_eq(&waiter.bell, bell));
        F::stand(&mut state, Waiter { bell: Arc::clone(bell), until, who: self.who })
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        let mut state = self.lock();
        state.line.retain(|waiter| !Arc::ptr_eq(&waiter.bell, bell));
        Self::claim(&mut state, bell).then(|| self.seat())
    }
}

impl<F: Flaw> Drop for Seat<F> {
    fn drop(&mut self) {
        if let Some(hall) = self.hall.take() {
            hall.change(|state| F::give(state, Until::Release));
        }
    }
}

impl<F> Clone for Hall<F> {
    fn clone(&self) -> Self {
        let who = self.shared.clones.fetch_add(1, Ordering::Relaxed) + 1;
        Self { shared: Arc::clone(&self.shared), when_full: self.when_full.clone(), who, flaw: PhantomData }
    }
}
