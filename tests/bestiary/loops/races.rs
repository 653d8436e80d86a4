//! Loops that leave somebody in the queue because something happens between two of their steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use epoll_acceptor::Line;
use epoll_acceptor::admission::{Bell, Wishes};
use epoll_acceptor::admission::{Ring, Until};
use epoll_acceptor::drain::Peek;
use epoll_acceptor::sim::{Action, Handle};

use crate::desk::{Desk, Logic, Next, Pass, Right, Why};
use crate::hunt::{Mutant, edge, level, limit, once, twice};
use crate::world::World;

pub(crate) fn mutants() -> Vec<Mutant> {
    vec![
        Mutant::of_loop::<LateFlag>(&["S5"], "P1", edge(2), twice(&[Action::Pause(0), Action::Resume(0)])),
        Mutant::of_loop::<ArmsFromAfar>(&["S15"], "P1", limit(1, level(2)), once(&[Action::Free])),
        Mutant::of_loop::<FlagAndTimer>(&["S21"], "P1", limit(1, level(2)), once(&[Action::Free])),
        Mutant::of_loop::<OverwritesTheRelease>(&["S22"], "P1", limit(1, level(2)), once(&[Action::Free])),
    ]
}

/// Notes that more may wait only after the user's code has run, which may have resumed it by then.
#[derive(Default)]
struct LateFlag {
    levers: Arc<Levers>,
}

#[derive(Default)]
struct Levers {
    paused: AtomicBool,
    owed: AtomicBool,
}

struct LateHandle(Arc<Levers>, Arc<Bell>);

impl Logic for LateFlag {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        Right.begin(at, wishes)
    }

    fn goes_on(&mut self, at: &mut Pass<'_>) -> Next {
        if self.levers.paused.load(SeqCst) {
            at.silence();
            self.levers.owed.store(true, SeqCst);
            return Next::Leave;
        }
        Right.goes_on(at)
    }

    fn handle(&self, desk: &Desk) -> Arc<dyn Handle> {
        Arc::new(LateHandle(Arc::clone(&self.levers), Arc::clone(&desk.bell)))
    }
}

impl Handle for LateHandle {
    fn pause(&self) {
        self.0.paused.store(true, SeqCst);
    }

    fn resume(&self) {
        self.0.paused.store(false, SeqCst);
        if self.0.owed.swap(false, SeqCst) {
            self.1.ring();
        }
    }

    fn stop(&self) {
        self.1.stop();
    }
}

/// Whoever frees a place arms the listener himself, on his thread; the owner may be about to disarm it.
#[derive(Default)]
struct ArmsFromAfar;

/// Arms instead of ringing.
pub(crate) struct Arming(pub Arc<dyn World>);

impl Ring for Arming {
    fn ring(&self) {
        self.0.arm();
    }
}

impl Logic for ArmsFromAfar {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        if at.world.peek() == Peek::Empty {
            return Next::Leave;
        }
        let next = at.wait_for_room();
        if next == Next::Leave {
            at.silence();
        }
        next
    }

    fn ringer(&self, world: &Arc<dyn World>) -> Box<dyn Ring> {
        Box::new(Arming(Arc::clone(world)))
    }
}

/// Tells the releaser that it sleeps only if the flag is still down, and the releaser has just raised it.
#[derive(Default)]
struct FlagAndTimer {
    flags: Arc<Flags>,
}

#[derive(Default)]
struct Flags {
    accepting: AtomicBool,
    asleep: AtomicBool,
}

struct FlagRing(Arc<Flags>, Box<dyn Ring>);

impl Ring for FlagRing {
    fn ring(&self) {
        self.0.accepting.store(true, SeqCst);
        if self.0.asleep.swap(false, SeqCst) {
            self.1.ring();
        }
    }
}

impl Logic for FlagAndTimer {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        self.flags.accepting.store(false, SeqCst);
        let next = at.sleep(Why::Full);
        if next == Next::Leave && !self.flags.accepting.load(SeqCst) {
            self.flags.asleep.store(true, SeqCst);
        }
        next
    }

    fn ringer(&self, world: &Arc<dyn World>) -> Box<dyn Ring> {
        Box::new(FlagRing(Arc::clone(&self.flags), world.ringer()))
    }
}

/// Says that it sleeps after it has seen that it must, over whatever was said in between.
#[derive(Default)]
struct OverwritesTheRelease;

impl Logic for OverwritesTheRelease {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        at.silence();
        let (Line::Room | Line::Standing | Line::Turn) = at.world.stand(&at.bell, Until::Room);
        Next::Leave
    }
}
