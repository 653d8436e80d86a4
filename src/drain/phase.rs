//! The phases of an acceptor, and every transition between them: the only calls that arm and disarm the listener, join
//! and leave the wait queue, and set the alarm, except that `AcceptCore::begin` joins the queue to collect a permit.
//!
//! An acceptor that cannot accept disarms its listener, because an armed listener that is not served makes the owner
//! spin (P2). The order keeps P1: check whether anything is pending (if not, only a pause blocks), disarm, and only
//! then join the wait queue or set the alarm; joining checks for a permit in the same step.
//!
//! A Unix listener that was shut down with connections queued is reported forever. If it cannot be drained now, it is
//! removed from the epoll, and drained later.

use std::time::Duration;

use super::backend::{Backend, Peek};
use super::core::{AcceptCore, PassEnd};
use super::errno::Errno;
use super::state::{ListenerClosed, State};
use super::trigger::Trigger;
use crate::admission::filter::Filter;
use crate::admission::semaphore::{Enqueued, Semaphore, WaitFor};

/// The state of an acceptor. `State` is what other threads see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Armed: the kernel reports the listener.
    Listening,
    /// Disarmed, or removed from the epoll, until what it is blocked on ends.
    Blocked { on: Blocked, registered: bool },
    /// Removed from the epoll for good.
    Closed(Closed),
}

/// The condition that an acceptor is blocked on, and what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// In the gate's wait queue for a permit.
    Full,
    /// Until the alarm; in the wait queue for a release, if that may help.
    Exhausted { retry_at: Duration, enqueued: bool },
    /// Until the alarm.
    Throttled { retry_at: Duration },
    /// Until no pause is active.
    Paused,
}

/// The reason why an acceptor will never accept again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    Stopped,
    /// The owner must be told once that its listener is closed.
    Listener {
        owed: Option<ListenerClosed>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockReason {
    Full,
    Exhausted(Errno),
    Throttled(Duration),
    Paused,
    /// The condition that it is blocked on has not ended.
    StillBlocked,
}

enum BlockOutcome {
    Blocked,
    /// Nothing is pending, or the listener is closed.
    NoReason,
    /// The pass has a permit after all, and listens again.
    Acquired,
}

/// No acceptor sleeps for less: the wakeup costs more than it would save.
const THROTTLE_MIN: Duration = Duration::from_millis(1);

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    /// Arms the listener and unblocks the acceptor.
    pub(super) fn listen(&mut self) {
        if !self.arm() || self.phase == Phase::Listening {
            return;
        }
        let kept = self.leave_wait_queue();
        self.phase = Phase::Listening;
        self.set_alarm();
        self.set_state(State::Listening);
        self.hand_on(kept);
    }

    /// Arms the listener, unless the kernel will report it anyway. Returns whether the kernel will report it.
    #[inline]
    pub(super) fn arm(&mut self) -> bool {
        if self.phase == Phase::Listening && self.config.trigger != Trigger::Edge {
            return true;
        }
        self.shared.counters.rearms.add();
        match self.backend.arm() {
            Ok(()) => true,
            Err(errno) => {
                self.block_unarmed(errno);
                false
            }
        }
    }

    /// The kernel is out of memory: the alarm retries.
    #[cold]
    fn block_unarmed(&mut self, errno: Errno) {
        let registered = !matches!(self.phase, Phase::Blocked { registered: false, .. });
        let on = self.exhausted(errno);
        self.enter_blocked(on, registered);
        self.close_pass();
    }

    /// Blocks until the gate has a permit, unless the pass has one now.
    #[cold]
    pub(super) fn block_on_gate(&mut self) -> Result<Option<G::Permit>, PassEnd> {
        match self.try_block(BlockReason::Full) {
            BlockOutcome::Acquired if self.phase == Phase::Listening => Ok(self.permit.take()),
            _ => Err(PassEnd::Done),
        }
    }

    /// Blocks, if there is a reason to. Ends the pass.
    #[cold]
    pub(super) fn block(&mut self, reason: BlockReason) {
        self.try_block(reason);
        self.cancel_permit();
        self.close_pass();
    }

    /// The only place that disarms the listener for a time.
    fn try_block(&mut self, reason: BlockReason) -> BlockOutcome {
        let registered = match self.backend.peek() {
            Peek::Closed => {
                self.close_for(None);
                return BlockOutcome::NoReason;
            }
            // The next arrival causes another attempt. An acceptor that is blocked already stays so until its condition
            // ends.
            Peek::Empty if reason != BlockReason::Paused => return BlockOutcome::NoReason,
            // The kernel would report it forever, with any mask.
            Peek::ClosedPending => self.remove(),
            Peek::Empty | Peek::Pending => self.disarm(),
        };
        let on = match (reason, self.phase) {
            (BlockReason::Full, _) => Blocked::Full,
            (BlockReason::Exhausted(errno), _) => self.exhausted(errno),
            (BlockReason::Throttled(wait), _) => {
                self.shared.counters.throttles.add();
                Blocked::Throttled { retry_at: self.now().saturating_add(wait.max(THROTTLE_MIN)) }
            }
            (BlockReason::Paused, _) => Blocked::Paused,
            (BlockReason::StillBlocked, Phase::Blocked { on, .. }) => {
                self.phase = Phase::Blocked { on, registered };
                return BlockOutcome::Blocked;
            }
            (BlockReason::StillBlocked, _) => return BlockOutcome::NoReason,
        };
        self.enter_blocked(on, registered)
    }

    /// Enters the phase, joins or leaves the wait queue, and sets the alarm.
    fn enter_blocked(&mut self, on: Blocked, registered: bool) -> BlockOutcome {
        let kept = self.leave_wait_queue();
        self.phase = Phase::Blocked { on, registered };
        self.set_alarm();
        self.hand_on(kept);
        match on {
            Blocked::Full => {
                if let Enqueued::Acquired(permit) = self.gate.enqueue(&self.notifier, WaitFor::Permit) {
                    self.permit = Some(permit);
                    self.listen();
                    return BlockOutcome::Acquired;
                }
                self.shared.counters.full.add();
                self.set_state(State::Full);
            }
            Blocked::Exhausted { enqueued, .. } => {
                if enqueued {
                    // Any release may have freed a descriptor. The alarm makes up for a release before this call.
                    if let Enqueued::Acquired(permit) = self.gate.enqueue(&self.notifier, WaitFor::Release) {
                        self.gate.cancel(permit);
                    }
                }
                self.set_state(State::Exhausted);
            }
            Blocked::Throttled { .. } => self.set_state(State::Throttled),
            // Compares the published state, because removing the listener has changed the phase already.
            Blocked::Paused if self.shared.state() == State::Paused => {}
            Blocked::Paused => {
                self.shared.counters.pauses.add();
                self.set_state(State::Paused);
            }
        }
        BlockOutcome::Blocked
    }

    fn exhausted(&mut self, errno: Errno) -> Blocked {
        self.futile_accepts = 0;
        self.shared.set_last_errno(errno);
        let now = self.now();
        let retry = self.backoff.failed(now);
        Blocked::Exhausted { retry_at: now.saturating_add(retry.after), enqueued: retry.on_release }
    }

    /// Stops the acceptor, or ends it because its listener is closed (P9).
    pub(super) fn close(&mut self, closed: Closed) {
        self.remove();
        let kept = self.leave_wait_queue();
        self.phase = Phase::Closed(closed);
        self.set_alarm();
        self.set_state(match closed {
            Closed::Stopped => State::Stopped,
            Closed::Listener { .. } => State::Closed,
        });
        self.close_pass();
        self.hand_on(kept);
    }

    /// Ends the acceptor because its listener is closed. The owner must be told, unless a graceful shutdown closed it.
    pub(super) fn close_for(&mut self, errno: Option<Errno>) {
        self.close(match self.ends_by_shutdown() {
            true => Closed::Stopped,
            false => Closed::Listener { owed: Some(ListenerClosed::new(errno)) },
        });
    }

    /// Disarms the listener; returns whether it is still registered.
    fn disarm(&mut self) -> bool {
        match self.phase {
            Phase::Listening => match self.backend.disarm() {
                Ok(()) => {
                    self.on_disarmed();
                    true
                }
                Err(_) => self.remove(),
            },
            Phase::Blocked { registered, .. } => registered,
            Phase::Closed(_) => false,
        }
    }

    /// Removes the listener from the epoll; returns `false`, because it is not registered then.
    fn remove(&mut self) -> bool {
        let removed = !matches!(self.phase, Phase::Closed(_) | Phase::Blocked { registered: false, .. });
        if removed {
            self.backend.remove();
        }
        match &mut self.phase {
            Phase::Listening => {
                self.phase = Phase::Blocked { on: Blocked::Paused, registered: false };
                self.on_disarmed();
            }
            Phase::Blocked { registered, .. } => *registered = false,
            Phase::Closed(_) => {}
        }
        false
    }

    /// Called after each disarm. Of several exclusive registrations the kernel has woken only this one for what is
    /// queued, so the others must be woken (P1). They may be in other processes: only the kernel can wake them, and
    /// does so only if the queue is not empty and a thread sleeps. A look at the queue beforehand could be out of date.
    fn on_disarmed(&self) {
        if self.config.trigger == Trigger::Exclusive {
            self.shared.counters.rewakes.add();
            self.backend.rewake_other_epolls();
        }
    }

    /// Removes the listener from the epoll, except in a forked child, where that would leave the parent deaf.
    pub(crate) fn deregister(&mut self) {
        if self.backend.is_owned_by_this_process() {
            self.remove();
        }
    }

    /// Leaves the wait queue. Returns the permit that was kept there.
    #[must_use = "it is handed on"]
    pub(super) fn leave_wait_queue(&self) -> Option<G::Permit> {
        match self.phase {
            Phase::Blocked { on: Blocked::Full | Blocked::Exhausted { enqueued: true, .. }, .. } => {
                self.gate.dequeue(&self.notifier)
            }
            _ => None,
        }
    }

    /// Hands on a permit that was kept in the wait queue (P4). Called when the kernel's registration agrees with the
    /// phase: the task that is woken may panic in its waker.
    pub(super) fn hand_on(&self, kept: Option<G::Permit>) {
        if let Some(permit) = kept {
            self.gate.cancel(permit);
        }
    }

    /// Sets the one alarm for what the acceptor is blocked on and for its graceful shutdown, whichever is due first.
    pub(super) fn set_alarm(&mut self) {
        let retry_at = match self.phase {
            Phase::Blocked {
                on: Blocked::Exhausted { retry_at, .. } | Blocked::Throttled { retry_at },
                ..
            } => Some(retry_at),
            _ => None,
        };
        let check_at = self.ending.as_ref().map(|ending| ending.check_at);
        let at = match (retry_at, check_at) {
            (Some(retry_at), Some(check_at)) => Some(retry_at.min(check_at)),
            (at, None) | (None, at) => at,
        };
        if at == self.alarm_at && at.is_none() {
            return;
        }
        self.alarm_at = at;
        let after = at.map(|at| at.saturating_sub(self.now()));
        if self.backend.set_alarm(after).is_err() && at.is_some() {
            // Nothing else would end the wait.
            self.notifier.self_wake();
        }
    }

    /// Returns whether a moment has come. An alarm that has expired is trusted more than the clock: the process may
    /// have entered a time namespace since.
    pub(super) fn is_due(&self, at: Duration) -> bool {
        self.now() >= at || (self.alarm_at == Some(at) && !self.backend.is_alarm_pending())
    }

    pub(super) fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Publishes the state, as the last step of a transition: a subscriber may panic.
    fn set_state(&self, state: State) {
        self.shared.set_state(state);
    }
}
