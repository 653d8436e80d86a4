//! The gate: a connection limit with a FIFO wait queue, shared by any number of acceptors, tasks and threads.

use std::fmt;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::capacity::{Capacity, Limits};
use super::fast_path::{FreePermits, LockedCapacity, NeedsLock};
use super::notifier::Notifier;
use super::permit::Permit;
use super::refusal::Refusal;
use super::semaphore::{Enqueued, Semaphore, WaitFor};
use super::sync::{Arc, Condvar, Mutex};
use super::wait_queue::Wakes;

/// A limit on the connections in service, over all acceptors, tasks and threads that share it.
///
/// A `Gate` is a handle: clones are the same gate. An acceptor takes a permit before it accepts, and the [`Permit`]
/// travels with the connection; dropping it, on any thread, releases it.
///
/// A full gate has a FIFO wait queue. A released permit is handed to the first waiter in the same step, so no acceptor
/// that is awake can take it first. Of `n` waiters each gets one of the next `n` permits that are released. A waiter
/// that has no use for its permit hands it on.
///
/// ```
/// use epoll_acceptor::Gate;
///
/// let gate = Gate::new(2);
/// let (a, b) = (gate.try_acquire(), gate.try_acquire());
/// assert!(a.is_some() && b.is_some());
/// assert!(gate.try_acquire().is_none(), "both permits are in use");
/// drop(a);
/// assert_eq!(gate.in_use(), 1);
/// ```
///
/// At the end of a service, close the gate and wait for the connections in service:
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::Gate;
///
/// let gate = Gate::new(10);
/// let last = gate.try_acquire().unwrap();
/// let thread = std::thread::spawn(move || drop(last));
/// gate.set_limit(0);
/// assert!(gate.wait_idle(Some(Duration::from_secs(5))));
/// assert!(gate.try_acquire().is_none());
/// # thread.join().unwrap();
/// ```
///
/// ## Prompt owners
///
/// A permit that was handed to an acceptor is in use until the acceptor's next pass, which uses it or hands it on. An
/// owner that does not answer its events withholds the permit until then; a forgotten acceptor (`std::mem::forget`)
/// withholds it forever.
///
/// ## Not in a signal handler
///
/// A gate's methods may take a lock. [`Control::pause`](crate::Control::pause) and
/// [`Control::stop`](crate::Control::stop) take none.
///
/// ## Not across fork
///
/// The count lives in this process's memory: a permit that a forked child drops is not released here. In the child of a
/// process with several threads the lock may be held forever: do nothing there but exec or exit.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
    when_full: WhenFull,
    privileged: bool,
}

/// The fate of a connection that finds a [`Gate`] full.
///
/// ```
/// use epoll_acceptor::{Gate, Refusal, WhenFull};
///
/// let waiting = Gate::new(10_000);
/// let shedding = waiting.with_when_full(WhenFull::Shed(Refusal::message("503 try elsewhere\n")));
/// let permit = waiting.try_acquire();
/// assert_eq!(shedding.in_use(), 1, "one gate; the answer belongs to the handle");
/// # drop(permit);
/// ```
///
/// Which one to choose: [the guide to overload](crate::guide::overload).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits in the kernel's accept queue until a permit is available.
    #[default]
    Wait,
    /// It is accepted and refused at once.
    Shed(Refusal),
}

/// Configures a [`Gate`]; made by [`Gate::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct GateBuilder {
    limits: Limits,
    when_full: WhenFull,
}

/// The state that all handles and permits of a gate share: under one lock, with a fast path beside it.
pub(super) struct Shared {
    pub(super) free: FreePermits,
    state: Mutex<Capacity>,
    idle: Condvar,
}

impl Gate {
    /// Creates a gate for at most `limit` connections. Further connections wait in the kernel's accept queue.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self::builder(limit).build()
    }

    /// Configures a gate for at most `limit` connections.
    ///
    /// ```
    /// use epoll_acceptor::{Gate, Refusal, WhenFull};
    ///
    /// let gate = Gate::builder(10_000)
    ///     .handshakes(200)
    ///     .low_water(64)
    ///     .when_full(WhenFull::Shed(Refusal::Reset))
    ///     .build();
    /// assert_eq!(gate.limit(), 10_000);
    /// ```
    pub const fn builder(limit: u32) -> GateBuilder {
        let limits = Limits { limit, handshakes: None, low_water: 0, reserved: 0 };
        GateBuilder { limits, when_full: WhenFull::Wait }
    }

    /// Returns a handle to the same gate with another [`WhenFull`]: one acceptor may shed where another waits.
    #[must_use]
    pub fn with_when_full(&self, when_full: WhenFull) -> Self {
        Self { when_full, ..self.clone() }
    }

    /// Returns a handle to the same gate that may take the [`reserved`](GateBuilder::reserved) permits: for an
    /// administrator's listener, which must work when everything else is full.
    ///
    /// ```
    /// use epoll_acceptor::Gate;
    ///
    /// let public = Gate::builder(100).reserved(2).build();
    /// let admin = public.privileged();
    /// let all: Vec<_> = std::iter::from_fn(|| public.try_acquire()).collect();
    /// assert_eq!(all.len(), 98);
    /// assert!(admin.try_acquire().is_some());
    /// ```
    #[must_use]
    pub fn privileged(&self) -> Self {
        Self { privileged: true, ..self.clone() }
    }

    /// Returns the limit.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.shared.lock().limits.limit
    }

    /// Changes the limit for all handles, and hands new permits to the waiters. A lower limit closes no connection: it
    /// keeps new ones out until enough have ended. With 0 the gate is closed.
    pub fn set_limit(&self, limit: u32) {
        self.shared.change(WaitFor::Release, |state| state.limits.limit = limit);
    }

    /// Returns how many permits are in use, including those that were handed to a waiter. May exceed the limit after it
    /// was lowered.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.shared.lock().in_use
    }

    /// Returns how many of the permits in use are in the [handshake stage](GateBuilder::handshakes): 0 for a gate
    /// without one.
    #[must_use]
    pub fn handshakes_in_use(&self) -> u32 {
        self.shared.lock().handshaking
    }

    /// Returns whether an acceptor or a task waits for a permit. A waiter that was handed a permit no longer counts.
    #[must_use]
    pub fn has_waiters(&self) -> bool {
        self.shared.lock().queue.waits_for_permit()
    }

    /// Takes a permit for work that is not an accepted connection, or returns `None` if the gate is full.
    #[inline]
    #[must_use]
    pub fn try_acquire(&self) -> Option<Permit> {
        let taken = match self.shared.free.try_take() {
            Ok(taken) => taken,
            Err(NeedsLock) => self.take_locked(),
        };
        taken.then(|| self.permit())
    }

    #[cold]
    fn take_locked(&self) -> bool {
        self.shared.lock().take(self.privileged)
    }

    /// Waits until no permit is in use, for at most `timeout` (`None`: without a bound). Returns whether none is.
    ///
    /// It does not keep new connections out: close the gate (`set_limit(0)`) or stop the acceptors first. A permit that
    /// was handed to an acceptor counts until the acceptor's next pass, unless the acceptor was told to pause or to
    /// stop. In async code use [`idle`](Self::idle).
    #[must_use = "`false` means that the time ran out first"]
    pub fn wait_idle(&self, timeout: Option<Duration>) -> bool {
        self.shared.revoke_declined();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.shared.lock();
        state.idle_threads += 1;
        while state.in_use > 0 && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            state = self.shared.wait(state, deadline);
        }
        state.idle_threads -= 1;
        state.in_use == 0
    }

    /// Creates the [`Permit`] for a permit that is already counted.
    #[inline]
    pub(super) fn permit(&self) -> Permit {
        Permit::of(Arc::clone(&self.shared))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) const fn is_privileged(&self) -> bool {
        self.privileged
    }
}

impl GateBuilder {
    /// Limits the permits in the handshake stage to `limit`. A new permit counts against both limits until
    /// [`Permit::handshake_done`], so clients that never finish their TLS handshakes occupy at most `limit` permits.
    ///
    /// ```
    /// use epoll_acceptor::Gate;
    ///
    /// let gate = Gate::builder(100).handshakes(1).build();
    /// let permit = gate.try_acquire().unwrap();
    /// assert!(gate.try_acquire().is_none(), "one handshake at a time");
    /// permit.handshake_done();
    /// assert!(gate.try_acquire().is_some());
    /// ```
    pub const fn handshakes(mut self, limit: u32) -> Self {
        self.limits.handshakes = Some(limit);
        self
    }

    /// Once the gate is full, reopens it only when `free` permits are free.
    ///
    /// Without a low-water mark an acceptor at the limit wakes for each permit that is released, to accept one
    /// connection. With it, the acceptor sleeps until it can accept a batch. If the limit is lower than `free`, the
    /// gate opens when no permit is in use.
    ///
    /// ```
    /// use epoll_acceptor::Gate;
    ///
    /// let gate = Gate::builder(2).low_water(2).build();
    /// let (one, two) = (gate.try_acquire(), gate.try_acquire());
    /// drop(one);
    /// assert!(gate.try_acquire().is_none(), "one permit is free; two must be");
    /// drop(two);
    /// assert!(gate.try_acquire().is_some());
    /// ```
    pub const fn low_water(mut self, free: u32) -> Self {
        self.limits.low_water = free;
        self
    }

    /// Keeps `permits` of the limit for [`privileged`](Gate::privileged) handles. These may take every permit, reserved
    /// or not, and go before others in the wait queue while only reserved permits are free.
    pub const fn reserved(mut self, permits: u32) -> Self {
        self.limits.reserved = permits;
        self
    }

    /// Sets what becomes of a connection that finds the gate full; [`WhenFull::Wait`] unless set.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Creates the gate.
    #[must_use]
    pub fn build(self) -> Gate {
        let shared = Shared {
            free: FreePermits::new(),
            state: Mutex::new(Capacity::new(self.limits)),
            idle: Condvar::new(),
        };
        drop(shared.lock());
        Gate { shared: Arc::new(shared), when_full: self.when_full, privileged: false }
    }
}

impl Semaphore for Gate {
    type Permit = Permit;

    #[inline]
    fn sheds(&self) -> Option<&Refusal> {
        match &self.when_full {
            WhenFull::Wait => None,
            WhenFull::Shed(refusal) => Some(refusal),
        }
    }

    #[inline]
    fn try_acquire(&self) -> Option<Permit> {
        Self::try_acquire(self)
    }

    fn cancel(&self, mut permit: Permit) {
        let Some((shared, handshaking)) = permit.take() else { return };
        if shared.free.try_give().is_err() {
            shared.change(WaitFor::Permit, |capacity| capacity.give_unused(handshaking, self.privileged));
        }
    }

    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Permit> {
        let wakes = Wakes::Acceptor(Arc::clone(notifier));
        let (acquired, _replaced) = self.shared.lock().acquire_or_enqueue(wakes, wait_for, self.privileged);
        match acquired {
            true => Enqueued::Acquired(self.permit()),
            false => Enqueued::Waiting,
        }
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Permit> {
        let wakes = Wakes::Acceptor(Arc::clone(notifier));
        let waiter = self.shared.lock().queue.remove(&wakes)?;
        waiter.has_permit().then(|| self.permit())
    }
}

impl Shared {
    pub(super) fn lock(&self) -> LockedCapacity<'_> {
        self.free.lock(&self.state)
    }

    /// Releases a permit. Calls `handshaking` only if the lock is needed.
    #[inline]
    pub(super) fn release(&self, handshaking: impl FnOnce() -> bool) {
        if self.free.try_give().is_err() {
            self.release_locked(handshaking());
        }
    }

    #[cold]
    fn release_locked(&self, handshaking: bool) {
        self.change(WaitFor::Release, |capacity| capacity.give(handshaking));
    }

    /// Changes the state, in the same step grants the permits that this makes available, and then wakes their waiters.
    pub(super) fn change(&self, released: WaitFor, change: impl FnOnce(&mut Capacity)) {
        let mut state = self.lock();
        change(&mut state);
        state.set_latch();
        if !state.queue.is_empty() {
            state.grant();
            state.revoke_above_limit();
            if released == WaitFor::Release {
                state.queue.call_release_waiters();
            }
        }
        if state.in_use == 0 && state.idle_threads > 0 {
            self.idle.notify_all();
        }
        if state.queue.is_empty() && state.idle_tasks.is_empty() {
            return;
        }
        drop(state);
        self.wake_called();
    }

    fn wait<'a>(&'a self, state: LockedCapacity<'a>, deadline: Option<Instant>) -> LockedCapacity<'a> {
        state.while_unlocked(|state| match deadline {
            None => self.idle.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        })
    }

    /// Wakes every waiter in the stage `Called`, one at a time and without the lock, and the tasks that wait for
    /// idleness.
    fn wake_called(&self) {
        /// Wakes the remaining waiters if a waker panics.
        struct WakeAll<'a>(&'a Shared);
        impl WakeAll<'_> {
            fn run(&self) {
                loop {
                    let mut state = self.0.lock();
                    let called = state.queue.next_called();
                    let idle_task = match state.in_use == 0 && called.is_none() {
                        true => state.idle_tasks.pop(),
                        false => None,
                    };
                    drop(state);
                    match (called, idle_task) {
                        (Some(waiter), _) => waiter.wake(),
                        (None, Some((_, task))) => task.wake(),
                        (None, None) => return,
                    }
                }
            }
        }
        impl Drop for WakeAll<'_> {
            fn drop(&mut self) {
                self.run();
            }
        }
        let all = WakeAll(self);
        all.run();
        std::mem::forget(all);
    }

    /// Hands on the permits that are kept for acceptors that were told to pause or to stop.
    pub(super) fn revoke_declined(&self) {
        while {
            let mut state = self.lock();
            state.queue.revoke(true)
        } {
            self.change(WaitFor::Permit, |state| state.give(true));
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("in_use", &self.in_use())
            .field("limit", &self.limit())
            .field("when_full", &self.when_full)
            .finish_non_exhaustive()
    }
}
