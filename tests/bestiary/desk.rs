//! An accept loop as people write it by hand, over the seam, in replaceable pieces.
//!
//! Untouched ([`Right`]) it keeps every promise. A mutant replaces one piece, so whatever it breaks is that
//! piece's fault.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::admission::{Bell, Wishes};
use epoll_acceptor::admission::{Ring, Until};
use epoll_acceptor::drain::{Backend, Errno, ErrnoClass, Peek};
use epoll_acceptor::sim::{Factory, Handle, InstrumentedBackend, Setup, Subject};
use epoll_acceptor::{Admission, Counters, Line, Reserve, Trigger};

use crate::parting::Parting;
use crate::world::{Place, Stream, Wired, World};

/// What a piece of the loop says about going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Again,
    Leave,
    /// Leave, and tell the owner that the listener is dead.
    ListenerClosed,
}

/// Why a loop falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Full,
    Exhausted,
    /// Exhausted still: the alarm has not gone off.
    Early,
    Paused,
}

/// What an accept loop has on its desk.
pub(crate) struct Desk {
    pub world: Arc<dyn World>,
    pub bell: Arc<Bell>,
    pub edge: bool,
    /// How it leaves the listener to others, where only one is told.
    pub parting: Option<Parting>,
    pub budget: u32,
    /// Attempts left in this pass.
    pub left: u32,
    /// Connections taken in this pass.
    pub taken: u32,
    /// The kernel was told not to report the listener.
    pub silent: bool,
    pub over: bool,
    pub shut: bool,
    pub delay: Duration,
    pub alarm_at: Option<Duration>,
    /// A place that was handed over in line.
    pub handed: Option<Place>,
    pub counters: Counters,
}

/// One pass over the queue.
pub(crate) struct Pass<'a> {
    desk: &'a mut Desk,
    keep: &'a mut dyn FnMut(Box<dyn Any + Send>),
}

/// The pieces of the loop, right as they stand here.
pub(crate) trait Logic: Send {
    /// Before the first event.
    fn built(&mut self, _desk: &mut Desk) {}

    /// Answers an event. Tells whether the owner learns that the listener is dead.
    fn turn(&mut self, at: &mut Pass<'_>) -> bool {
        let wishes = at.bell.answer();
        (at.left, at.taken) = (at.budget, 0);
        if at.over {
            return false;
        }
        let next = match self.begin(at, wishes) {
            Next::Again => self.drain(at),
            other => other,
        };
        self.leaves(at);
        at.hand_on();
        next == Next::ListenerClosed
    }

    /// Whether this pass accepts.
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if wishes.stop {
            return at.stop();
        }
        if wishes.pause {
            return self.paused(at);
        }
        if at.alarm_is_due() || wishes.rung {
            at.wake();
            return Next::Again;
        }
        at.sleep(Why::Early)
    }

    fn drain(&mut self, at: &mut Pass<'_>) -> Next {
        loop {
            let next = match self.goes_on(at) {
                Next::Again => self.one(at),
                other => other,
            };
            if next != Next::Again {
                return next;
            }
        }
    }

    /// One attempt, from the place to the connection.
    fn one(&mut self, at: &mut Pass<'_>) -> Next {
        let place = match at.handed.take().map_or_else(|| at.world.reserve(), Reserve::Room) {
            Reserve::Room(place) => Some(place),
            Reserve::Shed(_) | Reserve::NotBefore(_) => None,
            Reserve::Full => return self.full(at),
        };
        let accepted = at.accept();
        self.charge(at, accepted.as_ref().err().copied());
        match (accepted, place) {
            (Ok(stream), Some(place)) => self.taken(at, stream, place),
            (Ok(stream), None) => self.shed(at, stream),
            (Err(errno), place) => {
                if let Some(place) = place {
                    self.given_up(at, place, errno);
                }
                self.failed(at, errno)
            }
        }
    }

    /// Before each attempt.
    fn goes_on(&mut self, at: &mut Pass<'_>) -> Next {
        let wishes = at.bell.wishes();
        if wishes.stop {
            return at.stop();
        }
        if wishes.pause {
            return self.paused(at);
        }
        if at.left == 0 {
            return self.spent(at);
        }
        Next::Again
    }

    fn paused(&mut self, at: &mut Pass<'_>) -> Next {
        at.sleep(Why::Paused)
    }

    /// The budget is used up.
    fn spent(&mut self, at: &mut Pass<'_>) -> Next {
        at.tell_me_again();
        Next::Leave
    }

    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        at.sleep(Why::Full)
    }

    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.deliver(stream, place);
        Next::Again
    }

    fn shed(&mut self, at: &mut Pass<'_>, stream: Stream) -> Next {
        at.refuse(stream);
        Next::Again
    }

    /// Charges the budget for an attempt, which failed with this or did not.
    fn charge(&mut self, at: &mut Pass<'_>, _failure: Option<Errno>) {
        at.left -= 1;
    }

    /// What becomes of a place that was not used.
    fn given_up(&mut self, at: &mut Pass<'_>, place: Place, _errno: Errno) {
        at.world.cancel(place);
    }

    fn class(&self, errno: Errno) -> ErrnoClass {
        errno.class()
    }

    fn failed(&mut self, at: &mut Pass<'_>, errno: Errno) -> Next {
        match self.class(errno) {
            ErrnoClass::Consumed | ErrnoClass::Interrupted => Next::Again,
            ErrnoClass::Empty => self.empty(at),
            ErrnoClass::Resource => self.exhausted(at),
            ErrnoClass::Fatal => self.dead(at),
        }
    }

    fn empty(&mut self, at: &mut Pass<'_>) -> Next {
        match at.world.peek() {
            _ if at.shut => at.die(),
            Peek::Shut => at.die(),
            Peek::ShutQueued => {
                at.shut = true;
                Next::Again
            }
            Peek::Empty => Next::Leave,
            // Another consumer was there before, or someone came since: that is an event of its own.
            Peek::Waiting => Next::Leave,
        }
    }

    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.sleep(Why::Exhausted)
    }

    fn dead(&mut self, at: &mut Pass<'_>) -> Next {
        at.die()
    }

    /// The one exit of every pass.
    fn leaves(&mut self, _at: &mut Pass<'_>) {}

    /// Its owner drops it.
    fn dropped(&mut self, desk: &mut Desk) {
        if !desk.over {
            desk.part(None, |world| world.detach());
        }
    }

    /// How others command it.
    fn handle(&self, desk: &Desk) -> Arc<dyn Handle> {
        Arc::clone(&desk.bell) as Arc<dyn Handle>
    }

    /// How others wake it.
    fn ringer(&self, world: &Arc<dyn World>) -> Box<dyn Ring> {
        world.ringer()
    }

    fn counters(&self, desk: &Desk) -> Counters {
        desk.counters.clone()
    }
}

/// The loop as it should be.
#[derive(Default)]
pub(crate) struct Right;

impl Logic for Right {}

const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_millis(200);

impl Desk {
    /// Back to listening.
    pub(crate) fn wake(&mut self) {
        if self.silent {
            self.silent = false;
            self.world.arm();
        }
        self.forget_reasons();
    }

    /// Has the kernel report what is still queued, where it would not by itself.
    pub(crate) fn tell_me_again(&mut self) {
        if self.edge {
            self.world.arm();
        }
    }

    /// Falls silent, if anybody waits at all: look, silence the kernel, and only then stand in line.
    pub(crate) fn sleep(&mut self, why: Why) -> Next {
        match self.world.peek() {
            Peek::Shut => return self.die(),
            Peek::Empty if why != Why::Paused => {
                self.wake();
                return Next::Leave;
            }
            Peek::ShutQueued => {
                self.silent = true;
                self.part(Some(why), |world| world.detach());
            }
            Peek::Empty | Peek::Waiting => self.silence_for(Some(why)),
        }
        match why {
            Why::Full => return self.wait_for_room(),
            Why::Exhausted => self.back_off(),
            Why::Early => self.set_alarm_again(),
            Why::Paused => self.forget_reasons(),
        }
        Next::Leave
    }

    pub(crate) fn silence(&mut self) {
        self.silence_for(None);
    }

    fn silence_for(&mut self, why: Option<Why>) {
        if !self.silent {
            self.silent = true;
            self.part(why, |world| world.disarm());
        }
    }

    /// Leaves the listener to others, by a call that has the kernel tell it of nobody any more.
    pub(crate) fn part(&self, why: Option<Why>, go: impl FnOnce(&dyn World)) {
        match self.parting {
            Some(parting) => parting.carry_out(&*self.world, why, go),
            None => go(&*self.world),
        }
    }

    pub(crate) fn wait_for_room(&mut self) -> Next {
        match self.world.stand(&self.bell, Until::Room) {
            Line::Standing => {
                self.cancel_alarm();
                Next::Leave
            }
            Line::Room | Line::Turn => {
                self.left -= 1;
                self.wake();
                Next::Again
            }
        }
    }

    pub(crate) fn back_off(&mut self) {
        self.set_alarm(self.delay);
        self.delay = (self.delay * 2).min(DELAY_MAX);
        let _ = self.world.stand(&self.bell, Until::Release);
    }

    pub(crate) fn set_alarm(&mut self, after: Duration) {
        self.alarm_at = Some(self.world.now() + after);
        self.world.alarm(Some(after));
    }

    pub(crate) fn cancel_alarm(&mut self) {
        if self.alarm_at.take().is_some() {
            self.world.alarm(None);
        }
    }

    pub(crate) fn alarm_is_due(&self) -> bool {
        self.alarm_at.is_none_or(|at| at <= self.world.now())
    }

    fn set_alarm_again(&mut self) {
        if let Some(at) = self.alarm_at {
            self.world.alarm(Some(at - self.world.now()));
        }
    }

    fn forget_reasons(&mut self) {
        if let Some(place) = self.world.leave(&self.bell) {
            self.handed = Some(place);
        }
        self.cancel_alarm();
    }

    /// Gives a place that was not used to the next in line.
    fn hand_on(&mut self) {
        if let Some(place) = self.handed.take() {
            self.world.cancel(place);
        }
    }

    pub(crate) fn stop(&mut self) -> Next {
        self.over = true;
        self.part(None, |world| world.detach());
        self.forget_reasons();
        Next::Leave
    }

    pub(crate) fn die(&mut self) -> Next {
        self.stop();
        Next::ListenerClosed
    }

    /// One call of accept, counted.
    pub(crate) fn accept(&mut self) -> Result<Stream, Errno> {
        let counters = &mut self.counters;
        counters.attempts += 1;
        let accepted = self.world.accept();
        match &accepted {
            Ok(_) => {
                self.taken += 1;
                self.delay = DELAY_MIN;
            }
            Err(errno) => match errno.class() {
                ErrnoClass::Consumed => counters.aborted += 1,
                ErrnoClass::Interrupted => counters.interrupted += 1,
                ErrnoClass::Empty => counters.empty += 1,
                ErrnoClass::Resource => counters.exhausted += 1,
                ErrnoClass::Fatal => counters.dead += 1,
            },
        }
        accepted
    }

    pub(crate) fn refuse(&mut self, stream: Stream) {
        (self.counters.refused, self.counters.refused_full) =
            (self.counters.refused + 1, self.counters.refused_full + 1);
        self.world.refuse(stream);
    }
}

impl Pass<'_> {
    /// Hands a connection to the user, with its place.
    pub(crate) fn deliver(&mut self, stream: Stream, place: Place) {
        self.hand_over(stream, Some(place));
    }

    /// Hands a connection to the user, with a place or without.
    pub(crate) fn hand_over(&mut self, stream: Stream, place: Option<Place>) {
        self.counters.delivered += 1;
        stream.deliver();
        // A tuple drops in order: closed first, given back second.
        (self.keep)(Box::new((stream, place)));
    }
}

impl Deref for Pass<'_> {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        self.desk
    }
}

impl DerefMut for Pass<'_> {
    fn deref_mut(&mut self) -> &mut Desk {
        self.desk
    }
}

/// Makes loops of one logic.
pub(crate) struct Hands(pub fn() -> Box<dyn Logic>);

struct Hand {
    desk: Desk,
    logic: Box<dyn Logic>,
    handle: Arc<dyn Handle>,
}

impl Factory for Hands {
    fn make<P, A>(&self, port: InstrumentedBackend<P>, admission: A, case: &Setup) -> Box<dyn Subject>
    where
        P: Backend + 'static,
        P::Stream: Send,
        A: Admission + Clone + 'static,
        A::Permit: Send,
    {
        let world: Arc<dyn World> = Arc::new(Wired { port, admission });
        let mut logic = (self.0)();
        let mut desk = Desk {
            bell: Arc::new(Bell::new(logic.ringer(&world))),
            world,
            edge: case.trigger == Trigger::Edge,
            parting: (case.trigger == Trigger::Exclusive).then_some(Parting::Announces),
            budget: case.budget,
            left: 0,
            taken: 0,
            silent: false,
            over: false,
            shut: false,
            delay: DELAY_MIN,
            alarm_at: None,
            handed: None,
            counters: Counters::default(),
        };
        logic.built(&mut desk);
        let handle = logic.handle(&desk);
        Box::new(Hand { desk, logic, handle })
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.logic.dropped(&mut self.desk);
        // Whatever the logic forgets: a place that is kept is for the next in line.
        self.desk.forget_reasons();
        self.desk.hand_on();
    }
}

impl Subject for Hand {
    fn turn(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool {
        self.logic.turn(&mut Pass { desk: &mut self.desk, keep })
    }

    fn control(&self) -> Option<Arc<dyn Handle>> {
        Some(Arc::clone(&self.handle))
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.logic.counters(&self.desk))
    }
}
