//! The acceptor's core: one owner, one pass at a time, one place for each decision.
//!
//! # Nothing is owed while user code runs (P1, P13)
//!
//! A connection is delivered only while the kernel is bound to report the listener again if more is queued. So an
//! acceptor that is edge-triggered, or was blocked, arms the listener *when a pass begins* ([`AcceptCore::begin`]),
//! before user code runs. Whatever happens after that (the loop is left, the iterator
//! forgotten, the body panics) needs no clean-up.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`"))]

use std::net::SocketAddr;
use std::time::Duration;

use super::accept::Missed;
use super::backend::{Backend, Peek};
use super::backoff::Backoff;
use super::config::Config;
use super::control::{Control, SharedState};
use super::errno::Errno;
use super::pass::{Pass, Then};
use super::phase::{BlockReason, Blocked, Closed, Phase};
use super::predict::BurstPredictor;
use super::shutdown::Ending;
use super::state::ListenerClosed;
use super::trigger::EmptyCheck;
use crate::admission::filter::Filter;
use crate::admission::gcra::Gcra;
use crate::admission::notifier::{Notifier, Requests};
use crate::admission::semaphore::{Enqueued, Semaphore, WaitFor};
use crate::admission::sync::Arc;

/// An acceptor over any [`Backend`], behind a gate and a filter: what real acceptors consist of, and what the simulated
/// kernel runs. Not covered by semantic versioning.
#[derive(Debug)]
pub struct AcceptCore<B: Backend, G: Semaphore, F: Filter> {
    pub(super) backend: B,
    pub(super) gate: G,
    pub(super) filter: F,
    pub(super) config: Config,
    pub(super) notifier: Arc<Notifier>,
    pub(super) shared: Arc<SharedState>,
    pub(super) phase: Phase,
    /// The graceful shutdown, from the command to its end.
    pub(super) ending: Option<Ending>,
    pub(super) pass: Pass,
    /// The gate's permit that this pass has reserved, and no connection has used yet.
    pub(super) permit: Option<G::Permit>,
    /// The peer of the last connection, if the accepts read it.
    pub(super) peer: Option<SocketAddr>,
    /// The configured check, or the next best that the listener supports.
    pub(super) empty_check: EmptyCheck,
    predictor: BurstPredictor,
    /// Whether the last pass found that the owner had been woken: then the next event need not be an arrival.
    woken_last_pass: bool,
    /// The listener was shut down with connections pending: it counts as closed when all are accepted. Never reset,
    /// because no listener in this state listens again.
    pub(super) draining_closed_listener: bool,
    pub(super) backoff: Backoff,
    /// Attempts since the last success or back-off that count towards `FUTILE_ACCEPTS_MAX`.
    pub(super) futile_accepts: u32,
    /// The time for which the alarm is set.
    pub(super) alarm_at: Option<Duration>,
    pub(super) refusal_rate: Option<Gcra>,
    /// The time until which nothing is accepted, because every accept risks a refusal.
    pub(super) refusals_resume_at: Option<Duration>,
    /// The reserve descriptor must be opened (again).
    pub(super) reserve_fd_missing: bool,
    #[cfg(feature = "tracing")]
    pub(super) refusal_log: super::tracing::RefusalLog,
}

/// A connection and its permits, before they are put together: dropped in this order.
pub(crate) type Parts<B, G, F> = (<B as Backend>::Stream, <F as Filter>::Permit, <G as Semaphore>::Permit);
/// One step of a pass: a connection, the news that the listener is closed, or the end.
pub type Step<C> = Option<Result<C, ListenerClosed>>;

/// The reason why a pass takes no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassEnd {
    /// The budget is used, or the queue is empty.
    Done,
    Stop,
    Block(BlockReason),
    /// The listener is closed; the errno that said so, if one did.
    ListenerClosed(Option<Errno>),
}

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    /// Creates an acceptor on `backend`, which is armed.
    ///
    /// # Panics
    ///
    /// If the budget is 0.
    pub fn new(backend: B, gate: G, filter: F, mut config: Config) -> Self {
        assert!(config.budget > 0, "the budget must be at least 1");
        config.with_peer |= filter.needs_peer_addr();
        let reports_length = backend.queue_length().is_some();
        let empty_check = match config.empty_check {
            Some(EmptyCheck::QueueLength) | None if reports_length => EmptyCheck::QueueLength,
            Some(EmptyCheck::UntilEagain) => EmptyCheck::UntilEagain,
            _ => EmptyCheck::Poll,
        };
        Self {
            notifier: Arc::new(Notifier::new(backend.waker())),
            shared: Arc::new(SharedState::new(backend.clock())),
            phase: Phase::Listening,
            ending: None,
            pass: Pass::ended(),
            permit: None,
            peer: None,
            empty_check,
            predictor: BurstPredictor::default(),
            // The first pass may begin without an event: a connection that was queued before the first wait has none
            // yet.
            woken_last_pass: true,
            draining_closed_listener: false,
            backoff: Backoff::new(),
            futile_accepts: 0,
            alarm_at: None,
            refusal_rate: config.refusals.map(|(per_second, burst)| Gcra::new(per_second, burst)),
            refusals_resume_at: None,
            reserve_fd_missing: config.when_exhausted.is_some() && !backend.make_reserve(),
            #[cfg(feature = "tracing")]
            refusal_log: super::tracing::RefusalLog::default(),
            backend,
            gate,
            filter,
            config,
        }
    }

    /// Returns the backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the backend. Once its listener is taken out, nothing may be accepted.
    pub const fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Returns the peer of the last connection, if the accepts read it.
    #[inline]
    pub(crate) const fn peer(&self) -> Option<SocketAddr> {
        // A `None` that the compiler can see costs less than a copy for each connection.
        if self.config.with_peer { self.peer } else { None }
    }

    /// Returns a handle for other threads.
    pub fn control(&self) -> Control {
        Control { notifier: Arc::clone(&self.notifier), shared: Arc::clone(&self.shared) }
    }

    /// Begins a pass: reads the requests of other threads, and arms the listener if needed (P1).
    ///
    /// `forgettable`: the caller may forget the pass before its first step.
    #[inline]
    pub(crate) fn begin(&mut self, forgettable: bool) {
        let guard = WakeOnPanic(self);
        let core = &mut *guard.0;
        core.close_pass();
        core.shared.counters.passes.add();
        if core.expects_arrival() {
            core.pass = core.new_pass(false);
            core.arm();
        } else {
            core.begin_slowly(forgettable);
        }
        std::mem::forget(guard);
    }

    /// Returns whether nothing but an arrival can have woken the owner.
    #[inline]
    pub(crate) fn expects_arrival(&self) -> bool {
        let listening = matches!(self.phase, Phase::Listening);
        listening && !self.woken_last_pass && self.notifier.requests().is_empty()
    }

    /// As [`begin`](Self::begin), when something other than an arrival may have happened.
    #[cold]
    fn begin_slowly(&mut self, forgettable: bool) {
        let requests = self.notifier.take();
        let doubt = requests.woken() || self.woken_last_pass || !matches!(self.phase, Phase::Listening);
        self.woken_last_pass = requests.woken();
        self.pass = self.new_pass(doubt);
        if requests.shutdown() {
            self.begin_shutdown();
        }
        match self.phase {
            Phase::Closed(Closed::Listener { owed: Some(_) }) => {}
            Phase::Closed(_) => self.close_pass(),
            _ if requests.stop() => self.close(Closed::Stopped),
            // The first step of the pass blocks. A permit is not kept until then.
            _ if requests.paused() && !self.refuses_pending() => self.hand_on(self.leave_wait_queue()),
            // A needless pass keeps the alarm and does not retry before it. The first step looks for a closed listener,
            // which may have caused the event.
            Phase::Blocked {
                on: Blocked::Exhausted { retry_at, .. } | Blocked::Throttled { retry_at },
                ..
            } if !requests.notified() && !self.is_due(retry_at) => self.set_alarm(),
            Phase::Blocked { on: Blocked::Full, .. } => {
                // It keeps its turn in the wait queue (P11).
                if let Enqueued::Acquired(permit) = self.gate.enqueue(&self.notifier, WaitFor::Permit) {
                    self.permit = Some(permit);
                    self.listen();
                    // If this pass is forgotten before its first step, another must hand the permit on. Looking at the
                    // queue is not enough: another process may accept what it shows.
                    if forgettable {
                        self.notifier.self_wake();
                    }
                }
            }
            _ => self.listen(),
        }
        if self.ending.is_some() {
            self.check_shutdown();
        }
    }

    /// Returns the next connection of the pass, or ends it.
    #[inline]
    pub(crate) fn advance(&mut self) -> Step<Parts<B, G, F>> {
        let guard = WakeOnPanic(self);
        let core = &mut *guard.0;
        let step = loop {
            // The last step of most passes.
            if core.pass.has_all() && !core.notifier.requests().interrupts() {
                core.close_pass();
                break None;
            }
            match core.accept_one() {
                Ok(connection) => break Some(Ok(connection)),
                Err(Missed::Retry) => {}
                Err(Missed::End(end)) => break core.end(end).map(Err),
            }
        };
        std::mem::forget(guard);
        step
    }

    /// Checks everything but the gate and the filter: whether the pass may take another connection.
    #[inline]
    pub(super) fn may_accept(&mut self) -> Result<(), PassEnd> {
        if self.pass.left == 0 {
            return Err(PassEnd::Done);
        }
        let requests = self.notifier.requests();
        if requests.interrupts() {
            self.check_commands(requests)?;
        }
        match self.phase {
            Phase::Listening => {}
            Phase::Blocked { .. } => return Err(PassEnd::Block(BlockReason::StillBlocked)),
            Phase::Closed(_) => return Err(PassEnd::Done),
        }
        if self.refusals_resume_at.is_some() {
            self.may_refuse()?;
        }
        self.look()
    }

    /// Checks whether the commands of other threads let the pass go on. A graceful shutdown is a command until it has
    /// ended. Called before each accept: the owner may spend long on the connections of a pass.
    #[cold]
    pub(super) fn check_commands(&self, requests: Requests) -> Result<(), PassEnd> {
        match &self.ending {
            _ if requests.stop() => Err(PassEnd::Stop),
            _ if requests.paused() && !self.refuses_pending() => Err(PassEnd::Block(BlockReason::Paused)),
            // The next pass begins it.
            None if requests.shutdown() => Err(PassEnd::Done),
            Some(ending) if self.now() >= ending.deadline => Err(PassEnd::Done),
            _ => Ok(()),
        }
    }

    /// Checks that a connection is pending; asks the kernel only where that is unknown (P14).
    #[inline]
    fn look(&mut self) -> Result<(), PassEnd> {
        if self.pass.pending > 0 { Ok(()) } else { self.look_at_queue() }
    }

    fn look_at_queue(&mut self) -> Result<(), PassEnd> {
        let length = match self.pass.then {
            Then::End => return Err(PassEnd::Done),
            Then::ReadLength => self.backend.queue_length(),
            Then::Peek => None,
        };
        // Zero alone proves nothing: a kernel that does not report the length returns it, too.
        if let Some(length @ 1..) = length {
            self.predictor.learn(length);
            self.pass.saw_length(length);
            return Ok(());
        }
        match self.backend.peek() {
            Peek::Pending => self.pass.saw_one(),
            Peek::ClosedPending => self.drain_closed_listener(),
            Peek::Closed => return Err(PassEnd::ListenerClosed(None)),
            Peek::Empty => {
                if self.pass.counts {
                    self.predictor.learn(self.pass.taken);
                }
                return Err(PassEnd::Done);
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn end(&mut self, end: PassEnd) -> Option<ListenerClosed> {
        self.cancel_permit();
        match end {
            PassEnd::Done => self.close_pass(),
            PassEnd::Stop => self.close(Closed::Stopped),
            PassEnd::ListenerClosed(errno) => self.close_for(errno),
            PassEnd::Block(reason) => {
                let refused = match reason {
                    BlockReason::Exhausted(errno) => self.refuse_when_exhausted(errno),
                    _ => None,
                };
                match refused {
                    Some(PassEnd::ListenerClosed(errno)) => self.close_for(errno),
                    _ => self.block(reason),
                }
            }
        }
        if self.ending.is_some() {
            self.check_shutdown();
        }
        match &mut self.phase {
            Phase::Closed(Closed::Listener { owed }) => owed.take(),
            _ => None,
        }
    }

    /// Cancels the permit that no connection of this pass has used.
    #[inline]
    pub(super) fn cancel_permit(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.gate.cancel(permit);
        }
    }

    fn new_pass(&mut self, doubt: bool) -> Pass {
        let budget = self.config.budget;
        if self.empty_check != EmptyCheck::UntilEagain && !self.predictor.counts() {
            Pass::one(budget, doubt)
        } else {
            Pass::all(budget, doubt, self.empty_check)
        }
    }

    /// Ends the pass; one that was left early is ended when the next begins.
    #[inline]
    pub(super) fn close_pass(&mut self) {
        if !self.pass.over {
            (self.pass.over, self.pass.left) = (true, 0);
            self.shared.counters.passed(self.pass.taken);
            if self.reserve_fd_missing {
                self.reserve_fd_missing = !self.backend.make_reserve();
            }
            self.cancel_permit();
        }
    }
}

/// A filter, a subscriber or a waker may panic: then another pass does what this one could not (P13).
struct WakeOnPanic<'a, B: Backend, G: Semaphore, F: Filter>(&'a mut AcceptCore<B, G, F>);

impl<B: Backend, G: Semaphore, F: Filter> Drop for WakeOnPanic<'_, B, G, F> {
    fn drop(&mut self) {
        self.0.cancel_permit();
        self.0.notifier.self_wake();
    }
}

impl<B: Backend, G: Semaphore, F: Filter> Drop for AcceptCore<B, G, F> {
    fn drop(&mut self) {
        self.deregister();
        self.cancel_permit();
        self.hand_on(self.leave_wait_queue());
    }
}
