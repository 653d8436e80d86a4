//! The acceptor itself: one owner, one pass at a time, one place where each decision is made.
//!
//! # Nothing is owed while user code runs
//!
//! A connection is handed out only while the kernel is bound to speak again if anything more waits. So a pass
//! settles with the kernel *when it begins* (`begin`), before the owner's code sees anything: edge-
//! triggered, or asleep until now, it re-arms (`wake`, the only place that does). Whatever happens
//! after that (the loop is left, the iterator forgotten, the body panics) there is nothing to clean up.
//! Level-triggered and awake, there is nothing to pay at all.
//!
//! # Falling asleep
//!
//! An acceptor that cannot accept tells the kernel to be silent, since a reported listener that is not served is
//! a spin. The order is the promise (`fall_asleep`, the only place that does): look whether anything
//! waits (nobody sleeps for want of a place for nobody), silence the kernel, and only then stand in line or set
//! the alarm; the line looks once more for room.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "the seam is public behind `sim`"))]

use std::time::Duration;

use super::backoff::Backoff;
use super::errno::{Class, Errno};
use super::pass::{Known, Pass};
use super::port::{Peek, Port};
use super::predict::Predict;
use super::shared::{Control, Published};
use super::state::{Dead, State};
use super::strategy::{Proof, Strategy};
use crate::admission::bell::Bell;
use crate::admission::connection::Connection;
use crate::admission::policy::{Admission, Line, Reserve, Until};
use crate::admission::sync::Arc;

/// What the builder settles: how much a pass may take, and how it knows the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Attempts per pass. Invariant: not 0.
    pub budget: u32,
    /// The proof asked for; `None` takes the best the listener has.
    pub proof: Option<Proof>,
}

/// An acceptor over any [`Port`]: what the acceptors on real listeners are made of, and what the simulated
/// kernel drives. Not covered by semantic versioning.
#[derive(Debug)]
pub struct Drain<P: Port, S: Strategy, A: Admission> {
    port: P,
    strategy: S,
    admission: A,
    bell: Arc<Bell>,
    published: Arc<Published>,
    plan: Plan,
    proof: Proof,
    predict: Predict,
    state: State,
    watch: Watch,
    /// Whether the bell may stand in the admission's line; being rung takes it out unnoticed.
    in_line: bool,
    backoff: Backoff,
    /// When the alarm goes off, if it is set.
    alarm_at: Option<Duration>,
    rung_before: bool,
    /// The listener was shut down with connections queued: take them all, then it is dead. For good, since no
    /// listener that can be in this state comes back from it.
    shut: bool,
    pass: Pass,
}

/// What the kernel was last told about the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Armed,
    Silent,
    Detached,
}

/// Why an acceptor falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Full,
    Exhausted,
    /// Exhausted still: its alarm has not gone off yet.
    NotYet,
    Paused,
}

/// Why a pass takes no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Budget used, or everything taken that it came for.
    Done,
    Stop,
    Asleep(Cause),
    Shut,
}

/// What became of falling asleep.
enum Slept {
    Over,
    /// Room came up: awake again.
    Retry,
    Dead(Dead),
}

/// The way in for the next connection.
enum Entry<P> {
    With(P),
    Refused(crate::admission::refusal::Refusal),
}

/// One step of a pass: a connection, the news that the listener is dead, or the end.
pub type Step<S, P> = Option<Result<Connection<S, P>, Dead>>;
type StepOf<P, A> = Step<<P as Port>::Stream, <A as Admission>::Permit>;

impl<P: Port, S: Strategy, A: Admission> Drain<P, S, A> {
    /// An acceptor on `port`, which is armed.
    ///
    /// # Panics
    ///
    /// If the budget is 0.
    pub fn new(port: P, strategy: S, admission: A, plan: Plan) -> Self {
        assert!(plan.budget > 0, "a pass with a budget of 0 never accepts: take 1 or more");
        let measurable = port.depth().is_some();
        let proof = match plan.proof {
            Some(Proof::Depth) | None if measurable => Proof::Depth,
            Some(Proof::Eagain) => Proof::Eagain,
            _ => Proof::Peek,
        };
        Self {
            bell: Arc::new(Bell::new(port.ringer())),
            port,
            strategy,
            admission,
            published: Arc::default(),
            plan,
            proof,
            predict: Predict::default(),
            state: State::Open,
            watch: Watch::Armed,
            in_line: false,
            backoff: Backoff::new(),
            alarm_at: None,
            // What is queued before the first wait has no event yet, and a first pass without one is no fault.
            rung_before: true,
            shut: false,
            pass: Pass::none(),
        }
    }

    /// The port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port, to take it apart. Nothing may be accepted after that.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    pub(super) fn control(&self) -> Control {
        Control { bell: Arc::clone(&self.bell), published: Arc::clone(&self.published) }
    }

    /// Begins a pass: reads what was asked of the owner, and settles with the kernel.
    pub(super) fn begin(&mut self) {
        self.close_pass();
        self.published.tally.passes.add();
        let wishes = self.bell.answer();
        let doubt = wishes.rung || self.rung_before || self.watch != Watch::Armed;
        self.rung_before = wishes.rung;
        self.pass = self.new_pass(doubt);
        if self.state.is_over() {
            self.pass.over = true;
        } else if wishes.stop {
            self.halt();
        } else if wishes.pause {
            // The first step of the pass puts it to sleep; until then whoever resumes rings.
        } else if self.state == State::Exhausted && !wishes.rung && self.reset_alarm_if_early() {
            // Asleep still; the first step looks for a dead listener, which may be why it was called.
        } else {
            self.wake();
        }
    }

    /// The next connection of the pass, or its end.
    pub(super) fn advance(&mut self) -> StepOf<P, A> {
        let mut entry = None;
        loop {
            if let Err(end) = self.may_take() {
                self.cancel(entry);
                return self.end(end);
            }
            let way = match entry.take() {
                Some(way) => way,
                None => match self.admission.reserve() {
                    Reserve::Room(permit) => Entry::With(permit),
                    Reserve::Shed(refusal) => Entry::Refused(refusal),
                    Reserve::Full => match self.fall_asleep(Cause::Full) {
                        Slept::Over => return None,
                        Slept::Retry => continue,
                        Slept::Dead(dead) => return Some(Err(dead)),
                    },
                },
            };
            match self.attempt() {
                Ok(stream) => match way {
                    Entry::With(permit) => {
                        self.published.tally.delivered.add();
                        return Some(Ok(Connection::new(stream, permit)));
                    }
                    Entry::Refused(refusal) => {
                        self.published.tally.refused.add();
                        self.port.refuse(stream, &refusal);
                    }
                },
                Err(errno) => match errno.class() {
                    Class::Consumed | Class::Interrupted => entry = Some(way),
                    class => {
                        // Given up before falling asleep: in line, it would ring for its own place.
                        self.cancel(Some(way));
                        if let Err(end) = self.failed(class, errno) {
                            return end;
                        }
                    }
                },
            }
        }
    }

    /// Whether the pass goes on, by everything but the admission.
    fn may_take(&mut self) -> Result<(), End> {
        if self.pass.over {
            return Err(End::Done);
        }
        let wishes = self.bell.wishes();
        if wishes.stop {
            return Err(End::Stop);
        }
        if wishes.pause {
            return Err(End::Asleep(Cause::Paused));
        }
        if self.state == State::Exhausted {
            return Err(End::Asleep(Cause::NotYet));
        }
        if self.pass.left == 0 {
            return Err(End::Done);
        }
        if self.shut { Ok(()) } else { self.look() }
    }

    /// Whether anything waits, asking the kernel only where that is not known.
    fn look(&mut self) -> Result<(), End> {
        match self.pass.known {
            Known::Exactly(0) => Err(End::Done),
            Known::Exactly(_) | Known::Told | Known::UntilEagain => Ok(()),
            Known::Count => match self.port.depth() {
                // Zero is no proof by itself: another kernel may not report it.
                None | Some(0) => self.peek(),
                Some(waiting) => {
                    self.predict.learn(waiting);
                    self.pass.known = Known::Exactly(waiting);
                    Ok(())
                }
            },
            Known::Ask => self.peek(),
        }
    }

    fn peek(&mut self) -> Result<(), End> {
        match self.port.peek() {
            Peek::Waiting => self.pass.known = Known::Told,
            Peek::ShutQueued => self.shut = true,
            Peek::Shut => return Err(End::Shut),
            Peek::Empty => {
                if self.pass.counts() {
                    self.predict.learn(self.pass.taken);
                }
                return Err(End::Done);
            }
        }
        Ok(())
    }

    fn attempt(&mut self) -> Result<P::Stream, Errno> {
        self.published.tally.attempts.add();
        self.pass.left -= 1;
        let accepted = self.port.accept();
        match &accepted {
            Ok(_) => {
                self.pass.took();
                self.backoff.succeeded();
            }
            Err(errno) => {
                self.published.tally.failed(errno.class());
                if errno.class() == Class::Consumed {
                    self.pass.took();
                }
            }
        }
        accepted
    }

    /// What an attempt that took nothing means for the pass: `Err` is its end.
    fn failed(&mut self, class: Class, errno: Errno) -> Result<(), StepOf<P, A>> {
        match class {
            Class::Empty if self.shut => Err(Some(Err(self.die(Some(errno))))),
            // An empty queue that raised an event: look for a listener that is shut and says so for ever.
            Class::Empty if self.pass.taken == 0 => match self.port.peek() {
                Peek::ShutQueued => {
                    self.shut = true;
                    Ok(())
                }
                Peek::Shut => Err(Some(Err(self.die(None)))),
                Peek::Empty | Peek::Waiting => Err(self.end(End::Done)),
            },
            Class::Empty => Err(self.end(End::Done)),
            Class::Dead => Err(Some(Err(self.die(Some(errno))))),
            Class::Resource | Class::Consumed | Class::Interrupted => {
                Err(self.end(End::Asleep(Cause::Exhausted)))
            }
        }
    }

    /// The one exit of every pass.
    fn end(&mut self, end: End) -> StepOf<P, A> {
        match end {
            End::Done => self.close_pass(),
            End::Stop => self.halt(),
            End::Shut => return Some(Err(self.die(None))),
            End::Asleep(cause) => {
                if let Slept::Dead(dead) = self.fall_asleep(cause) {
                    return Some(Err(dead));
                }
            }
        }
        None
    }

    /// Tells the kernel to report the listener, unless it is bound to; ends every reason to sleep.
    fn wake(&mut self) {
        if self.watch == Watch::Armed && !self.strategy.is_edge() {
            return;
        }
        self.published.tally.rearms.add();
        if self.port.arm().is_err() {
            // Nothing but want of memory can be the reason. Try again by the alarm.
            self.watch = Watch::Silent;
            self.exhausted();
            return self.close_pass();
        }
        self.watch = Watch::Armed;
        self.set_state(State::Open);
        self.leave_line();
        self.cancel_alarm();
    }

    /// Falls asleep if there is anything to sleep for. The only place that silences the kernel.
    fn fall_asleep(&mut self, cause: Cause) -> Slept {
        match self.port.peek() {
            Peek::Shut => return Slept::Dead(self.die(None)),
            Peek::Empty if cause != Cause::Paused => {
                // Nobody waits for a place or a descriptor: the next arrival will ask.
                if self.watch != Watch::Armed {
                    self.wake();
                }
                self.close_pass();
                return Slept::Over;
            }
            // It would be reported for ever, whatever was asked of the kernel.
            Peek::ShutQueued => self.detach(),
            Peek::Empty | Peek::Waiting => self.silence(),
        }
        match cause {
            Cause::Full => match self.stand() {
                Line::Room => {
                    self.pass.left -= 1;
                    self.wake();
                    return Slept::Retry;
                }
                Line::Standing => {
                    self.in_line = true;
                    self.cancel_alarm();
                    self.published.tally.fulls.add();
                    self.set_state(State::Full);
                }
            },
            Cause::Exhausted => self.exhausted(),
            Cause::NotYet => {}
            Cause::Paused => self.paused(),
        }
        self.close_pass();
        Slept::Over
    }

    /// Stands in line for room. If the policy panics the owner is woken, since nobody else would.
    fn stand(&self) -> Line {
        struct Unwinding<'a>(&'a Bell);
        impl Drop for Unwinding<'_> {
            fn drop(&mut self) {
                self.0.ring();
            }
        }
        let unwinding = Unwinding(&self.bell);
        let line = self.admission.stand(&self.bell, Until::Room);
        std::mem::forget(unwinding);
        line
    }

    fn exhausted(&mut self) {
        self.set_state(State::Exhausted);
        let delay = self.backoff.failed();
        self.set_alarm(delay);
        // Any place given back may have freed a descriptor. What is missed here the alarm makes good.
        self.in_line = self.admission.stand(&self.bell, Until::Release) == Line::Standing;
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
                Ok(()) => self.watch = Watch::Silent,
                Err(_) => self.detach(),
            }
        }
    }

    fn detach(&mut self) {
        if self.watch != Watch::Detached {
            self.port.detach();
            self.watch = Watch::Detached;
        }
    }

    fn halt(&mut self) {
        self.close(State::Stopped);
    }

    fn die(&mut self, errno: Option<Errno>) -> Dead {
        self.close(State::Dead);
        Dead::new(errno)
    }

    fn close(&mut self, state: State) {
        self.detach();
        self.leave_line();
        self.cancel_alarm();
        self.set_state(state);
        self.close_pass();
    }

    fn cancel(&self, entry: Option<Entry<A::Permit>>) {
        if let Some(Entry::With(permit)) = entry {
            self.admission.cancel(permit);
        }
    }

    fn leave_line(&mut self) {
        if self.in_line {
            self.in_line = false;
            self.admission.leave(&self.bell);
        }
    }

    fn set_alarm(&mut self, after: Duration) {
        self.alarm_at = Some(self.port.now() + after);
        self.port.alarm(Some(after));
    }

    fn cancel_alarm(&mut self) {
        if self.alarm_at.take().is_some() {
            self.port.alarm(None);
        }
    }

    /// Sets the alarm again if it has not gone off yet: a needless pass must neither use it up nor run ahead.
    fn reset_alarm_if_early(&mut self) -> bool {
        let left = self.alarm_at.map_or(Duration::ZERO, |at| at.saturating_sub(self.port.now()));
        if left.is_zero() {
            return false;
        }
        self.port.alarm(Some(left));
        true
    }

    fn set_state(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.published.set_state(state);
        }
    }

    fn new_pass(&mut self, doubt: bool) -> Pass {
        if self.proof != Proof::Eagain && !self.predict.counts() {
            Pass::one(self.plan.budget, doubt)
        } else {
            Pass::all(self.plan.budget, doubt, self.proof)
        }
    }

    /// Ends the pass on paper; one that was left early is closed when the next begins.
    fn close_pass(&mut self) {
        if !self.pass.closed {
            self.pass.closed = true;
            self.published.tally.passed(self.pass.taken);
        }
        self.pass.over = true;
    }
}

impl<P: Port, S: Strategy, A: Admission> Drop for Drain<P, S, A> {
    fn drop(&mut self) {
        self.leave_line();
    }
}
