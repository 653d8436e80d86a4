//! Falling asleep and waking up: what an acceptor tells the kernel, the admission and its alarm.
//!
//! An acceptor that cannot accept tells the kernel to be silent, since a reported listener that is not served is a
//! spin. The order is the promise (`fall_asleep`): look whether anything waits (nobody sleeps for want of a
//! place for nobody), silence the kernel, and only then stand in line or set the alarm; the line looks once more for
//! room. `rearm` is the one place that re-arms.

use std::time::Duration;

use super::backend::{Backend, Peek};
use super::core::Drain;
use super::errno::Errno;
use super::state::{ListenerClosed, State};
use super::strategy::{Strategy, Trigger};
use crate::admission::bell::Bell;
use crate::admission::policy::{Admission, Line, Reserve, Until};

/// What the kernel was last told about the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Armed,
    Silent,
    Detached,
}

/// Why an acceptor falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Full,
    Exhausted,
    /// Not before this time has passed.
    Throttled(Duration),
    /// Exhausted or throttled still, and its alarm has not gone off yet; or full still, and its turn has not come.
    NotYet,
    Paused,
}

/// Nobody sleeps for less: to wake costs more than it would save.
const THROTTLE_MIN: Duration = Duration::from_millis(1);

/// How often it asks anew because room came up while it fell asleep, and gets none. More than that, and the policy says that there is
/// room where it has none to give: two parts of it that share one gate, for example.
const RETRIES_MAX: u32 = 3;

/// What became of falling asleep.
pub(super) enum Slept {
    Over,
    /// Room came up: awake again.
    Retry,
    ListenerClosed(ListenerClosed),
}

impl<P: Backend, S: Strategy, A: Admission> Drain<P, S, A> {
    /// Tells the kernel to report the listener, and ends every reason to sleep.
    pub(super) fn wake(&mut self) {
        if !self.rearm() {
            return;
        }
        let slept = self.state != State::Listening;
        if slept {
            self.set_state(State::Listening);
        }
        if !self.called {
            self.leave_line();
        }
        if slept {
            self.cancel_alarm();
        }
    }

    /// Tells the kernel to report the listener, unless it is bound to. Whether it will.
    #[inline]
    pub(super) fn rearm(&mut self) -> bool {
        if self.watch == Watch::Armed && self.strategy.trigger() != Trigger::Edge {
            return true;
        }
        self.published.tally.rearms.add();
        if self.port.arm().is_err() {
            self.not_armed();
            return false;
        }
        self.watch = Watch::Armed;
        true
    }

    /// Nothing but want of memory can be the reason. Try again by the alarm.
    #[cold]
    fn not_armed(&mut self) {
        self.watch = Watch::Silent;
        self.leave_line();
        self.exhausted();
        self.close_pass();
    }

    /// Falls asleep if there is anything to sleep for. The only place that silences the kernel for a while.
    #[cold]
    pub(super) fn fall_asleep(&mut self, why: Why) -> Slept {
        match self.port.peek() {
            Peek::Shut => return Slept::ListenerClosed(self.die(None)),
            Peek::Empty if why != Why::Paused => {
                // Nobody waits for a place or a descriptor. The next arrival will ask; or, asleep already, the alarm that
                // is set, or the turn in line.
                self.close_pass();
                return Slept::Over;
            }
            // It would be reported for ever, whatever was asked of the kernel.
            Peek::ShutQueued => self.detach(),
            Peek::Empty | Peek::Waiting => self.silence(),
        }
        match why {
            Why::Full => match self.stand(Until::Room) {
                Line::Room if self.retries >= RETRIES_MAX => self.throttled(THROTTLE_MIN),
                Line::Room | Line::Turn => {
                    self.pass.left -= 1;
                    self.retries += 1;
                    self.wake();
                    return Slept::Retry;
                }
                Line::Standing => {
                    self.cancel_alarm();
                    self.published.tally.full.add();
                    self.set_state(State::Full);
                }
            },
            Why::Exhausted => self.exhausted(),
            Why::Throttled(wait) => self.throttled(wait),
            Why::NotYet => {}
            Why::Paused => self.paused(),
        }
        self.close_pass();
        Slept::Over
    }

    /// Stands in line, or goes on standing. If the policy panics while it is asked for room the owner is woken, since
    /// nobody else would.
    pub(super) fn stand(&mut self, until: Until) -> Line {
        struct Unwinding<'a>(&'a Bell);
        impl Drop for Unwinding<'_> {
            fn drop(&mut self) {
                self.0.ring();
            }
        }
        // If it panics, that may be after it has put the bell in line.
        self.in_line = true;
        let unwinding = (until == Until::Room).then(|| Unwinding(&self.bell));
        let line = self.admission.stand(&self.bell, until);
        std::mem::forget(unwinding);
        self.in_line = line != Line::Room;
        self.called = line == Line::Turn;
        line
    }

    /// The place that is kept, if its turn has come.
    #[inline]
    pub(super) fn fetch(&mut self) -> Option<Reserve<A::Permit>> {
        if !self.called {
            return None;
        }
        (self.called, self.in_line) = (false, false);
        self.admission.fetch(&self.bell)
    }

    fn exhausted(&mut self) {
        self.fruitless = 0;
        let retry = self.backoff.failed(self.port.now());
        self.set_alarm(retry.after);
        self.set_state(State::Exhausted);
        if retry.hopes {
            // Any place given back may have freed a descriptor. What is missed here the alarm makes good.
            let _ = self.stand(Until::Release);
        }
    }

    fn throttled(&mut self, wait: Duration) {
        self.published.tally.throttles.add();
        self.set_alarm(wait.max(THROTTLE_MIN));
        self.set_state(State::Throttled);
    }

    fn paused(&mut self) {
        if self.state != State::Paused {
            self.published.tally.pauses.add();
            self.set_state(State::Paused);
        }
        self.leave_line();
        self.cancel_alarm();
    }

    fn silence(&mut self) {
        if self.watch == Watch::Armed {
            match self.port.disarm() {
                Ok(()) => self.left(Watch::Silent),
                Err(_) => self.detach(),
            }
        }
    }

    pub(super) fn detach(&mut self) {
        if self.watch != Watch::Detached {
            self.port.detach();
            self.left(Watch::Detached);
        }
    }

    /// The kernel reports the listener here no more. Who was told exclusively announces then, and whatever the reason:
    /// what is queued was reported to nobody else, and this reports it to all who are left. With nothing queued the
    /// kernel stays silent; a look beforehand could be out of date.
    fn left(&mut self, watch: Watch) {
        let before = std::mem::replace(&mut self.watch, watch);
        if before == Watch::Armed && self.strategy.trigger() == Trigger::Exclusive {
            self.published.tally.rewakes.add();
            self.port.announce();
        }
    }

    /// Leaves the listener to others, unless it is a forked child's copy: it shares the registration with its
    /// parent, and would deafen that.
    pub(crate) fn retire(&mut self) {
        if self.port.is_ours() {
            self.detach();
        }
    }

    pub(super) fn halt(&mut self) {
        self.close(State::Stopped);
    }

    pub(super) fn die(&mut self, errno: Option<Errno>) -> ListenerClosed {
        self.close(State::Closed);
        ListenerClosed::new(errno)
    }

    pub(super) fn close(&mut self, state: State) {
        self.detach();
        self.leave_line();
        self.cancel_alarm();
        self.set_state(state);
        self.close_pass();
    }

    #[inline]
    pub(super) fn leave_line(&mut self) {
        if self.in_line {
            (self.called, self.in_line) = (false, false);
            if let Some(permit) = self.admission.leave(&self.bell) {
                self.admission.cancel(permit);
            }
        }
    }

    fn set_alarm(&mut self, after: Duration) {
        self.alarm_at = Some(self.port.now().saturating_add(after));
        self.port.alarm(Some(after));
    }

    #[inline]
    pub(super) fn cancel_alarm(&mut self) {
        if self.alarm_at.take().is_some() {
            self.port.alarm(None);
        }
    }

    /// Sets the alarm again if it has not gone off yet: a needless pass must neither use it up nor run ahead.
    pub(super) fn reset_alarm_if_early(&mut self) -> bool {
        let left = self.alarm_at.map_or(Duration::ZERO, |at| at.saturating_sub(self.port.now()));
        if left.is_zero() {
            return false;
        }
        self.port.alarm(Some(left));
        true
    }

    #[inline]
    pub(super) fn set_state(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.published.set_state(state);
        }
    }
}
