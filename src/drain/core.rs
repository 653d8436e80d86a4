//! The acceptor itself: one owner, one pass at a time, one place where each decision is made.
//!
//! # Nothing is owed while user code runs
//!
//! A connection is handed out only while the kernel is bound to speak again if anything more waits. So a pass
//! settles with the kernel *when it begins* (`begin`), before the owner's code sees anything: edge-
//! triggered, or asleep until now, it re-arms (`rearm`, the only place that does). Whatever happens
//! after that (the loop is left, the iterator forgotten, the body panics) there is nothing to clean up.
//! Level-triggered, exclusively or not, and awake, there is nothing to pay at all.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "the seam is public behind `sim`"))]

use std::net::SocketAddr;
use std::time::Duration;

use super::backend::{Backend, Peek};
use super::backoff::Backoff;
use super::errno::{Errno, ErrnoClass};
use super::pass::{Known, Pass};
use super::predict::Predict;
use super::shared::{Control, Published};
use super::sleep::{Slept, Watch, Why};
use super::state::{ListenerClosed, State};
use super::strategy::{EmptyCheck, Strategy};
use crate::admission::bell::Bell;
use crate::admission::bucket::Bucket;
use crate::admission::connection::Connection;
use crate::admission::policy::{Admission, Line, Reserve, Until};
use crate::admission::refusal::Refusal;
use crate::admission::sync::Arc;

/// What the builder settles: how much a pass may take, and how it knows the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Attempts per pass. Invariant: not 0.
    pub budget: u32,
    /// The proof asked for; `None` takes the best the listener has.
    pub proof: Option<EmptyCheck>,
    /// At most so many refusals a second, and so many at once.
    pub refusals: Option<(u32, u32)>,
    /// How clients are told that descriptors have run out, instead of being left to wait.
    pub when_exhausted: Option<Refusal>,
}

impl Plan {
    /// So many attempts per pass, and everything else as it is by itself.
    #[must_use]
    pub const fn with_budget(budget: u32) -> Self {
        Self { budget, proof: None, refusals: None, when_exhausted: None }
    }
}

/// An acceptor over any [`Backend`]: what the acceptors on real listeners are made of, and what the simulated
/// kernel drives. Not covered by semantic versioning.
#[derive(Debug)]
pub struct Drain<P: Backend, S: Strategy, A: Admission> {
    pub(super) port: P,
    pub(super) strategy: S,
    pub(super) admission: A,
    pub(super) bell: Arc<Bell>,
    pub(super) published: Arc<Published>,
    pub(super) plan: Plan,
    pub(super) proof: EmptyCheck,
    pub(super) predict: Predict,
    pub(super) state: State,
    pub(super) watch: Watch,
    /// Whether the bell may stand in the admission's line; being rung takes it out unnoticed.
    pub(super) in_line: bool,
    /// Its turn in line has come: the first step of the pass fetches the place that is kept.
    pub(super) called: bool,
    pub(super) backoff: Backoff,
    /// When the alarm goes off, if it is set.
    pub(super) alarm_at: Option<Duration>,
    pub(super) rung_before: bool,
    /// The listener was shut down with connections queued: take them all, then it is dead. For good, since no
    /// listener that can be in this state comes back from it.
    pub(super) shut: bool,
    /// Attempts that were told to go on, since the last that took a connection.
    pub(super) fruitless: u32,
    /// How often room came up while it was to fall asleep, since there was some.
    pub(super) retries: u32,
    /// The rate of refusals, and until when nothing is taken because it was reached.
    pub(super) refusals: Option<Bucket>,
    pub(super) hold: Option<Duration>,
    /// The reserve descriptor is to be made (again).
    pub(super) lacks_reserve: bool,
    #[cfg(feature = "tracing")]
    pub(super) told: super::events::Told,
    pub(super) pass: Pass,
}

/// Why a pass takes no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Budget used, or everything taken that it came for.
    Done,
    Stop,
    Asleep(Why),
    Shut,
}

/// How many attempts in a row may come to nothing by errors that say "go on" before they are taken for want of
/// resources. Far more than any kernel was seen to give.
const FRUITLESS_MAX: u32 = 64;

/// One step of a pass: a connection, the news that the listener is dead, or the end.
pub type Step<S, P> = Option<Result<Connection<S, P>, ListenerClosed>>;
pub(super) type StepOf<P, A> = Step<<P as Backend>::Stream, <A as Admission>::Permit>;

impl<P: Backend, S: Strategy, A: Admission> Drain<P, S, A> {
    /// An acceptor on `port`, which is armed.
    ///
    /// # Panics
    ///
    /// If the budget is 0.
    pub fn new(port: P, strategy: S, admission: A, plan: Plan) -> Self {
        assert!(plan.budget > 0, "a pass with a budget of 0 never accepts: take 1 or more");
        let measurable = port.depth().is_some();
        let proof = match plan.proof {
            Some(EmptyCheck::QueueLength) | None if measurable => EmptyCheck::QueueLength,
            Some(EmptyCheck::UntilEagain) => EmptyCheck::UntilEagain,
            _ => EmptyCheck::Poll,
        };
        Self {
            published: Arc::default(),
            proof,
            predict: Predict::default(),
            state: State::Listening,
            watch: Watch::Armed,
            in_line: false,
            called: false,
            backoff: Backoff::new(),
            alarm_at: None,
            // What is queued before the first wait has no event yet, and a first pass without one is no fault.
            rung_before: true,
            shut: false,
            fruitless: 0,
            retries: 0,
            refusals: plan.refusals.map(|(per_second, burst)| Bucket::new(per_second, burst)),
            hold: None,
            #[cfg(feature = "tracing")]
            told: super::events::Told::default(),
            lacks_reserve: plan.when_exhausted.is_some() && !port.make_reserve(),
            pass: Pass::none(),
            bell: Arc::new(Bell::hang(port.ringer())),
            port,
            strategy,
            admission,
            plan,
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
    #[inline]
    pub(super) fn begin(&mut self) {
        self.close_pass();
        self.published.tally.passes.add();
        let undoubted = self.watch == Watch::Armed && !self.rung_before;
        if undoubted && self.state == State::Listening && self.bell.is_quiet() {
            self.pass = self.new_pass(false);
            self.rearm();
        } else {
            self.begin_otherwise();
        }
    }

    /// As [`begin`](Self::begin), when anything has happened but an arrival.
    #[cold]
    fn begin_otherwise(&mut self) {
        let wishes = self.bell.take();
        let rung = wishes.rung || wishes.nudged;
        let doubt = rung || self.rung_before || self.watch != Watch::Armed;
        self.rung_before = rung;
        self.pass = self.new_pass(doubt);
        if self.called {
            // The last pass was forgotten.
            self.leave_line();
        }
        if self.state.is_terminal() {
            self.close_pass();
        } else if wishes.stop {
            self.halt();
        } else if wishes.pause {
            // The first step of the pass puts it to sleep; until then whoever resumes rings. A place is not kept.
            self.leave_line();
        } else if matches!(self.state, State::Exhausted | State::Throttled)
            && !wishes.rung
            && self.reset_alarm_if_early()
        {
            // Asleep still; the first step looks for a dead listener, which may be why it was called.
        } else if self.state == State::Full && self.stand(Until::Room) == Line::Standing {
            // So here; and it goes on standing in line.
        } else {
            self.wake();
        }
    }

    /// Has a further pass begin if this one should be forgotten before its first step: it would be in the way of
    /// whoever stands in line behind it, with the place that is kept for it.
    #[inline]
    pub(super) fn may_be_forgotten(&self) {
        if self.called {
            self.bell.nudge();
        }
    }

    /// The next connection of the pass, or its end.
    #[inline]
    pub(super) fn advance(&mut self) -> StepOf<P, A> {
        // The last step of most passes, in few instructions.
        if self.pass.has_all() && !self.bell.commands() {
            self.close_pass();
            return None;
        }
        self.step()
    }

    #[inline]
    fn step(&mut self) -> StepOf<P, A> {
        let mut kept = self.fetch();
        loop {
            if let Err(end) = self.may_take() {
                self.cancel(kept);
                return self.end(end);
            }
            let answer = match kept.take() {
                // To be asked for when the connection is here.
                None if self.admission.never_waits() => None,
                None => Some(self.admission.reserve()),
                kept => kept,
            };
            let place = match answer {
                Some(Reserve::Full) => match self.fall_asleep(Why::Full) {
                    Slept::Over => return None,
                    Slept::Retry => {
                        kept = self.fetch();
                        continue;
                    }
                    Slept::ListenerClosed(dead) => return Some(Err(dead)),
                },
                Some(Reserve::NotBefore(wait)) => return self.end(End::Asleep(Why::Throttled(wait))),
                place => place,
            };
            self.retries = 0;
            match self.attempt() {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.let_in(stream, peer, place) {
                        return Some(Ok(connection));
                    }
                }
                Err(errno) => match errno.class() {
                    ErrnoClass::Consumed | ErrnoClass::Interrupted if self.fruitless < FRUITLESS_MAX => {
                        kept = place
                    }
                    class => {
                        // Given up before falling asleep: in line, it would ring for its own place.
                        self.cancel(place);
                        if let Err(end) = self.failed(class, errno) {
                            return end;
                        }
                    }
                },
            }
        }
    }

    /// Whether the pass goes on, by everything but the admission.
    #[inline]
    fn may_take(&mut self) -> Result<(), End> {
        if self.pass.over {
            return Err(End::Done);
        }
        if self.bell.commands() {
            let stop = self.bell.wishes().stop;
            return Err(if stop { End::Stop } else { End::Asleep(Why::Paused) });
        }
        if matches!(self.state, State::Exhausted | State::Full | State::Throttled) {
            return Err(End::Asleep(Why::NotYet));
        }
        if self.hold.is_some() {
            self.holds_back()?;
        }
        if self.pass.left == 0 {
            return Err(End::Done);
        }
        self.look()
    }

    /// Whether anything waits, asking the kernel only where that is not known.
    #[inline]
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
            Peek::ShutQueued => self.shut_with_queue(),
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

    #[inline]
    fn attempt(&mut self) -> Result<(P::Stream, Option<SocketAddr>), Errno> {
        let with_peer = self.admission.wants_peer();
        self.published.tally.attempts.add();
        self.pass.left -= 1;
        let accepted = match with_peer {
            true => self.port.accept_with_peer(),
            false => self.port.accept().map(|stream| (stream, None)),
        };
        match &accepted {
            Ok(_) => {
                self.pass.took();
                self.backoff.succeeded();
                self.fruitless = 0;
            }
            Err(errno) => self.attempt_failed(*errno),
        }
        accepted
    }

    #[cold]
    pub(super) fn attempt_failed(&mut self, errno: Errno) {
        let class = errno.class();
        self.published.tally.failed(class);
        self.fruitless += u32::from(matches!(class, ErrnoClass::Consumed | ErrnoClass::Interrupted));
        if class == ErrnoClass::Consumed {
            self.pass.took();
        }
    }

    /// What an attempt that took nothing means for the pass: `Err` is its end.
    fn failed(&mut self, class: ErrnoClass, errno: Errno) -> Result<(), StepOf<P, A>> {
        match class {
            ErrnoClass::Empty if self.shut => Err(Some(Err(self.die(Some(errno))))),
            // An empty queue that raised an event: look for a listener that is shut and says so for ever.
            ErrnoClass::Empty if self.pass.taken == 0 => match self.port.peek() {
                Peek::ShutQueued => {
                    self.shut_with_queue();
                    Ok(())
                }
                Peek::Shut => Err(Some(Err(self.die(None)))),
                // Somebody else was quicker, and the next has come already. But if that goes on, what filters the calls of
                // this process says so, and the kernel will report the listener for ever.
                Peek::Waiting if self.fruitless >= FRUITLESS_MAX => {
                    self.fruitless = 0;
                    Err(self.end(End::Asleep(Why::Exhausted)))
                }
                Peek::Waiting => {
                    self.fruitless += 1;
                    Err(self.end(End::Done))
                }
                Peek::Empty => Err(self.end(End::Done)),
            },
            ErrnoClass::Empty => Err(self.end(End::Done)),
            ErrnoClass::Fatal => Err(Some(Err(self.die(Some(errno))))),
            // Of the last two far too many in a row: whatever it is, it does not pass by trying.
            ErrnoClass::Resource | ErrnoClass::Consumed | ErrnoClass::Interrupted => {
                self.refuse_for_shortage(errno);
                Err(self.end(End::Asleep(Why::Exhausted)))
            }
        }
    }

    /// The one exit of every pass.
    fn end(&mut self, end: End) -> StepOf<P, A> {
        match end {
            End::Done => self.close_pass(),
            End::Stop => self.halt(),
            End::Shut => return Some(Err(self.die(None))),
            End::Asleep(why) => {
                if let Slept::ListenerClosed(dead) = self.fall_asleep(why) {
                    return Some(Err(dead));
                }
            }
        }
        None
    }

    #[inline]
    fn cancel(&self, place: Option<Reserve<A::Permit>>) {
        if let Some(Reserve::Room(permit)) = place {
            self.admission.cancel(permit);
        }
    }

    #[cold]
    fn shut_with_queue(&mut self) {
        self.shut = true;
        self.pass.known = Known::UntilEagain;
    }

    fn new_pass(&mut self, doubt: bool) -> Pass {
        if self.shut {
            Pass::all(self.plan.budget, doubt, EmptyCheck::UntilEagain)
        } else if self.proof != EmptyCheck::UntilEagain && !self.predict.counts() {
            Pass::one(self.plan.budget, doubt)
        } else {
            Pass::all(self.plan.budget, doubt, self.proof)
        }
    }

    /// Ends the pass on paper; one that was left early is closed when the next begins.
    #[inline]
    pub(super) fn close_pass(&mut self) {
        if !self.pass.over {
            (self.pass.over, self.pass.left) = (true, 0);
            self.published.tally.passed(self.pass.taken);
            if self.lacks_reserve {
                self.lacks_reserve = !self.port.make_reserve();
            }
        }
    }
}

impl<P: Backend, S: Strategy, A: Admission> Drop for Drain<P, S, A> {
    fn drop(&mut self) {
        self.retire();
        self.leave_line();
    }
}
