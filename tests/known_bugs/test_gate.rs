//! A connection limit in replaceable hooks. With those of [`Reference`] it keeps the promises of the crate's gate; a
//! mutant replaces one.
//!
//! Most hooks are pure functions of the state under the lock. Those that take the whole gate are one step under the lock
//! each, unless a mutant makes them several.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use epoll_acceptor::sim::{Enqueued, Limited, Notifier, Semaphore, WaitFor};
use epoll_acceptor::{Refusal, WhenFull};
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// The state under the lock.
#[derive(Default)]
pub(crate) struct State {
    pub limit: u32,
    pub in_use: u32,
    /// The waiters, in the order in which they came.
    pub queue: VecDeque<Waiter>,
    /// The acceptors for which a permit is kept.
    pub granted: Vec<Arc<Notifier>>,
    /// Whatever a mutant has to remember.
    pub memory: u32,
    pub pending: BTreeSet<u32>,
}

/// An acceptor that waits for a permit, or for any release.
pub(crate) struct Waiter {
    pub notifier: Arc<Notifier>,
    pub wait_for: WaitFor,
    pub acceptor: u32,
}

/// The owners to wake without the lock.
pub(crate) type Wakes = Vec<Arc<Notifier>>;

/// The hooks of a gate. Those that a mutant does not replace are correct.
pub(crate) trait GateHooks: Sized + Send + Sync + 'static {
    /// Whether owners are woken with the lock held.
    const WAKES_LOCKED: bool = false;

    fn built(_: &mut State) {}

    fn is_available(state: &State) -> bool {
        state.in_use < state.limit
    }

    /// Takes a permit for an acceptor, if one is available.
    fn take(state: &mut State, _acceptor: u32) -> bool {
        let available = Self::is_available(state);
        state.in_use += u32::from(available);
        available
    }

    /// A connection was refused because no permit was available.
    fn refused(_: &mut State) {}

    /// Releases a permit.
    fn give(state: &mut State, freed: WaitFor) -> Wakes {
        state.in_use = state.in_use.wrapping_sub(1);
        Self::grant_and_wake(state, freed)
    }

    /// Releases a permit that no connection has used.
    fn cancel(state: &mut State) -> Wakes {
        Self::give(state, WaitFor::Permit)
    }

    /// Returns the owners to wake after a change of the state.
    fn grant_and_wake(state: &mut State, freed: WaitFor) -> Wakes {
        if Self::is_available(state) { Self::wake(state, freed) } else { Wakes::new() }
    }

    /// Removes from the queue each waiter for which a permit is available now, or that waits for a release.
    fn wake(state: &mut State, freed: WaitFor) -> Wakes {
        let mut wakes = Wakes::new();
        for waiter in std::mem::take(&mut state.queue) {
            let woken = match waiter.wait_for {
                WaitFor::Permit => Self::take(state, waiter.acceptor),
                WaitFor::Release => freed == WaitFor::Release,
            };
            if !woken {
                state.queue.push_back(waiter);
                continue;
            }
            if waiter.wait_for == WaitFor::Permit {
                state.granted.push(Arc::clone(&waiter.notifier));
            }
            wakes.push(waiter.notifier);
        }
        wakes
    }

    /// Takes a permit for a waiter, or queues it: one that is queued already keeps its turn. Returns whether it has the
    /// permit.
    fn take_or_push(state: &mut State, waiter: Waiter) -> bool {
        let wants_permit = waiter.wait_for == WaitFor::Permit;
        let acquired = wants_permit && Self::is_available(state) && Self::take(state, waiter.acceptor);
        if acquired {
            state.remove(&waiter.notifier);
        } else if !state.is_queued(&waiter) {
            state.remove(&waiter.notifier);
            Self::push(state, waiter);
        }
        acquired
    }

    fn push(state: &mut State, waiter: Waiter) {
        state.queue.push_back(waiter);
    }

    fn set_limit(state: &mut State, limit: u32) -> Wakes {
        state.limit = limit;
        Self::grant_and_wake(state, WaitFor::Release)
    }

    /// As [`take`](Self::take), of the whole gate.
    fn try_acquire(gate: &Shared, acceptor: u32) -> bool {
        Self::take(&mut gate.lock(), acceptor)
    }

    /// As [`take_or_push`](Self::take_or_push), of the whole gate.
    fn acquire_or_enqueue(gate: &Shared, waiter: Waiter) -> bool {
        let mut state = gate.lock();
        state.collect(&waiter.notifier) || Self::take_or_push(&mut state, waiter)
    }

    /// As [`give`](Self::give), of the whole gate.
    fn release(gate: &Shared) {
        gate.change::<Self>(|state| Self::give(state, WaitFor::Release));
    }

    /// As [`cancel`](Self::cancel), of the whole gate.
    fn release_unused(gate: &Shared) {
        gate.change::<Self>(Self::cancel);
    }

    /// As [`set_limit`](Self::set_limit), of the whole gate.
    fn change_limit(gate: &Shared, limit: u32) {
        gate.change::<Self>(|state| Self::set_limit(state, limit));
    }

    /// Removes an acceptor from the queue. Returns whether a permit was kept for it.
    fn dequeue(gate: &Shared, notifier: &Arc<Notifier>) -> bool {
        let mut state = gate.lock();
        state.remove(notifier);
        state.collect(notifier)
    }

    fn in_use(gate: &Shared) -> u32 {
        let state = gate.lock();
        state.in_use + u32::try_from(state.pending.len()).expect("a few")
    }
}

/// The gate without a fault.
pub(crate) struct Reference;

impl GateHooks for Reference {}

/// Raised where a thread would wait for itself.
#[cfg(not(loom))]
pub(crate) struct Deadlock;

/// The hooks that a gate calls. Not type parameters of it, so that the simulation is compiled for one gate, not for each.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    built: fn(&mut State),
    refused: fn(&mut State),
    try_acquire: fn(&Shared, u32) -> bool,
    acquire_or_enqueue: fn(&Shared, Waiter) -> bool,
    release: fn(&Shared),
    release_unused: fn(&Shared),
    change_limit: fn(&Shared, u32),
    dequeue: fn(&Shared, &Arc<Notifier>) -> bool,
    in_use: fn(&Shared) -> u32,
}

/// A gate with these hooks. Clones are the same gate, for other acceptors.
pub(crate) struct TestGate {
    shared: Arc<Shared>,
    when_full: WhenFull,
    acceptor: u32,
    hooks: Hooks,
}

/// What all clones share.
pub(crate) struct Shared {
    state: Mutex<State>,
    clones: AtomicU32,
    /// What mutants keep beside the lock.
    #[cfg(loom)]
    pub(crate) flag: AtomicBool,
    #[cfg(loom)]
    pub(crate) word: AtomicU64,
}

/// A permit of a [`TestGate`].
pub(crate) struct TestPermit {
    gate: Option<Arc<Shared>>,
    release: fn(&Shared),
}

impl State {
    fn is_queued(&self, waiter: &Waiter) -> bool {
        let same = |queued: &Waiter| Arc::ptr_eq(&queued.notifier, &waiter.notifier);
        self.queue.iter().any(|queued| same(queued) && queued.wait_for == waiter.wait_for)
    }

    /// Removes an acceptor from the queue.
    pub(crate) fn remove(&mut self, notifier: &Arc<Notifier>) {
        self.queue.retain(|waiter| !Arc::ptr_eq(&waiter.notifier, notifier));
    }

    /// Collects the permit that is kept for an acceptor, unless the limit was lowered below it. Returns whether there
    /// was one.
    pub(crate) fn collect(&mut self, notifier: &Arc<Notifier>) -> bool {
        let Some(at) = self.granted.iter().position(|granted| Arc::ptr_eq(granted, notifier)) else {
            return false;
        };
        self.granted.remove(at);
        let kept = self.in_use <= self.limit;
        self.in_use -= u32::from(!kept);
        kept
    }
}

impl Shared {
    /// In a test of one thread, a lock that is taken is held by the caller.
    #[cfg(not(loom))]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => std::panic::resume_unwind(Box::new(Deadlock)),
        }
    }

    #[cfg(loom)]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the lock held")
    }

    /// Changes the state, and wakes owners without the lock.
    pub(crate) fn change<H: GateHooks>(&self, change: impl FnOnce(&mut State) -> Wakes) {
        let mut state = self.lock();
        let wakes = change(&mut state);
        let state = H::WAKES_LOCKED.then_some(state);
        wakes.iter().for_each(|notifier| notifier.notify());
        drop(state);
    }
}

impl Hooks {
    pub(crate) fn of<H: GateHooks>() -> Self {
        Self {
            built: H::built,
            refused: H::refused,
            try_acquire: H::try_acquire,
            acquire_or_enqueue: H::acquire_or_enqueue,
            release: H::release,
            release_unused: H::release_unused,
            change_limit: H::change_limit,
            dequeue: H::dequeue,
            in_use: H::in_use,
        }
    }
}

impl TestGate {
    pub(crate) fn new(hooks: Hooks, limit: u32, when_full: WhenFull) -> Self {
        let mut state = State { limit, ..State::default() };
        (hooks.built)(&mut state);
        let shared = Shared {
            state: Mutex::new(state),
            clones: AtomicU32::new(0),
            #[cfg(loom)]
            flag: AtomicBool::new(false),
            #[cfg(loom)]
            word: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), when_full, acceptor: 0, hooks }
    }

    /// Calls `call`, for which [`Limited`] makes gates with the hooks `H`.
    #[cfg_attr(loom, allow(dead_code, reason = "loom does not run the simulation"))]
    pub(crate) fn with_hooks<H: GateHooks, T>(call: impl FnOnce() -> T) -> T {
        HOOKS.set(Some(Hooks::of::<H>()));
        let result = call();
        HOOKS.set(None);
        result
    }

    fn permit(&self) -> TestPermit {
        TestPermit { gate: Some(Arc::clone(&self.shared)), release: self.hooks.release }
    }
}

std::thread_local! {
    static HOOKS: Cell<Option<Hooks>> = const { Cell::new(None) };
}

impl Limited for TestGate {
    /// With the hooks of [`with_hooks`](Self::with_hooks).
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        Self::new(HOOKS.get().expect("within `with_hooks`"), limit, when_full)
    }

    fn change_limit(&self, limit: u32) {
        (self.hooks.change_limit)(&self.shared, limit);
    }

    fn in_use(&self) -> Option<u32> {
        Some((self.hooks.in_use)(&self.shared))
    }
}

impl Semaphore for TestGate {
    type Permit = TestPermit;

    fn sheds(&self) -> Option<&Refusal> {
        match &self.when_full {
            WhenFull::Shed(refusal) => Some(refusal),
            _ => None,
        }
    }

    fn try_acquire(&self) -> Option<TestPermit> {
        let acquired = (self.hooks.try_acquire)(&self.shared, self.acceptor);
        if !acquired && self.sheds().is_some() {
            (self.hooks.refused)(&mut self.shared.lock());
        }
        acquired.then(|| self.permit())
    }

    fn cancel(&self, mut permit: TestPermit) {
        if permit.gate.take().is_some() {
            (self.hooks.release_unused)(&self.shared);
        }
    }

    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<TestPermit> {
        let waiter = Waiter { notifier: Arc::clone(notifier), wait_for, acceptor: self.acceptor };
        match (self.hooks.acquire_or_enqueue)(&self.shared, waiter) {
            true => Enqueued::Acquired(self.permit()),
            false => Enqueued::Waiting,
        }
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<TestPermit> {
        (self.hooks.dequeue)(&self.shared, notifier).then(|| self.permit())
    }
}

impl Drop for TestPermit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            (self.release)(&gate);
        }
    }
}

impl Clone for TestGate {
    fn clone(&self) -> Self {
        let acceptor = self.shared.clones.fetch_add(1, Ordering::Relaxed) + 1;
        Self {
            shared: Arc::clone(&self.shared),
            when_full: self.when_full.clone(),
            acceptor,
            hooks: self.hooks,
        }
    }
}
