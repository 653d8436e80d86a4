//! Loops that mistake an error for the end, or go on after it; and the loop of the outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use epoll_acceptor::admission::Ring;
use epoll_acceptor::admission::{Bell, Wishes};
use epoll_acceptor::drain::{Errno, ErrnoClass};
use epoll_acceptor::sim::{Action, Handle};

use super::races::Arming;
use crate::desk::{Desk, Logic, Next, Pass, Right};
use crate::hunt::{Mutant, edge, fail, level, limit, once};
use crate::world::{Stream, World};

pub(crate) fn mutants() -> Vec<Mutant> {
    let errno = |errno| once(&[fail(errno)]);
    let stop = once(&[Action::Stop(0)]);
    vec![
        Mutant::of_loop::<OneBadConnection>(&["S31"], "P7", level(2), errno(libc::ECONNABORTED)),
        Mutant::of_loop::<AnyErrorIsFatal>(&["S32", "M30"], "P7", level(2), errno(libc::EINTR)),
        Mutant::of_loop::<EnfileIsFatal>(&["S33"], "P7", level(1), errno(libc::ENFILE)),
        Mutant::of_loop::<EmfileShutsDown>(&["S34"], "P7", level(1), once(&[Action::Exhaust])),
        Mutant::of_loop::<StartsEnabled>(&["S35"], "P9", level(2), once(&[Action::Pause(0)])),
        Mutant::of_loop::<StopWakesNobody>(&["L5"], "P9", limit(1, level(2)), stop.clone()),
        Mutant::of_loop::<GoesOnAfterPause>(&["F8"], "P9", level(3), once(&[Action::Pause(0)])),
        Mutant::of_loop::<ResumeRevives>(&["F10"], "P9", level(1), stop.clone()),
        Mutant::of_loop::<RevivedFromAfar>(&["F14"], "P9", limit(1, level(2)), stop),
        Mutant::of_loop::<NeverLooks>(&["M48"], "P7", edge(1), once(&[Action::Shut(0)])),
    ]
}

/// Over the limit it closes the new connection, and returns where it should go on.
#[derive(Default)]
pub(crate) struct Outage;

impl Logic for Outage {
    fn shed(&mut self, at: &mut Pass<'_>, stream: Stream) -> Next {
        at.refuse(stream);
        Next::Leave
    }
}

/// One connection that fails takes the listener with it.
#[derive(Default)]
struct OneBadConnection;

impl Logic for OneBadConnection {
    fn class(&self, errno: Errno) -> ErrnoClass {
        match errno.class() {
            ErrnoClass::Consumed => ErrnoClass::Fatal,
            other => other,
        }
    }
}

/// Any error ends the loop.
#[derive(Default)]
struct AnyErrorIsFatal;

impl Logic for AnyErrorIsFatal {
    fn failed(&mut self, at: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Empty { Right.failed(at, errno) } else { at.die() }
    }
}

/// Of the two ways to be out of descriptors it knows one.
#[derive(Default)]
struct EnfileIsFatal;

impl Logic for EnfileIsFatal {
    fn class(&self, errno: Errno) -> ErrnoClass {
        if errno.number() == libc::ENFILE { ErrnoClass::Fatal } else { errno.class() }
    }
}

/// Out of descriptors, the whole server goes down.
#[derive(Default)]
struct EmfileShutsDown;

impl Logic for EmfileShutsDown {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.die()
    }
}

/// Made while everything is paused, it starts all the same.
#[derive(Default)]
struct StartsEnabled {
    started: bool,
}

impl Logic for StartsEnabled {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if self.started { Right.begin(at, wishes) } else { Next::Again }
    }

    fn goes_on(&mut self, at: &mut Pass<'_>) -> Next {
        match self.started {
            true => Right.goes_on(at),
            false if at.left == 0 => self.spent(at),
            false => Next::Again,
        }
    }

    fn leaves(&mut self, _: &mut Pass<'_>) {
        self.started = true;
    }
}

/// A handle that sets a flag and wakes nobody who waits for a place.
#[derive(Default)]
struct StopWakesNobody {
    stopped: Arc<AtomicBool>,
}

struct Quiet(Arc<AtomicBool>, Arc<Bell>);

impl Logic for StopWakesNobody {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if self.stopped.load(SeqCst) { at.stop() } else { Right.begin(at, wishes) }
    }

    fn goes_on(&mut self, at: &mut Pass<'_>) -> Next {
        if self.stopped.load(SeqCst) { at.stop() } else { Right.goes_on(at) }
    }

    fn handle(&self, desk: &Desk) -> Arc<dyn Handle> {
        Arc::new(Quiet(Arc::clone(&self.stopped), Arc::clone(&desk.bell)))
    }
}

impl Handle for Quiet {
    fn pause(&self) {
        self.1.pause();
    }

    fn resume(&self) {
        self.1.resume();
    }

    fn stop(&self) {
        self.0.store(true, SeqCst);
    }
}

/// Paused from inside, it finishes its round.
#[derive(Default)]
struct GoesOnAfterPause;

impl Logic for GoesOnAfterPause {
    fn goes_on(&mut self, at: &mut Pass<'_>) -> Next {
        if at.left == 0 { self.spent(at) } else { Next::Again }
    }
}

/// One variable for the state: who resumes takes back whatever it was.
#[derive(Default)]
struct ResumeRevives {
    silent: Arc<AtomicBool>,
}

struct OneState(Arc<AtomicBool>, Arc<Bell>);

impl Logic for ResumeRevives {
    fn begin(&mut self, at: &mut Pass<'_>, _: Wishes) -> Next {
        if self.silent.load(SeqCst) {
            at.silent = true;
            at.world.detach();
            return Next::Leave;
        }
        at.wake();
        Next::Again
    }

    fn handle(&self, desk: &Desk) -> Arc<dyn Handle> {
        Arc::new(OneState(Arc::clone(&self.silent), Arc::clone(&desk.bell)))
    }
}

impl Handle for OneState {
    fn pause(&self) {
        self.0.store(true, SeqCst);
        self.1.ring();
    }

    fn resume(&self) {
        self.0.store(false, SeqCst);
        self.1.ring();
    }

    fn stop(&self) {
        self.pause();
    }
}

/// Whoever wakes it changes the epoll himself, also if it has left that.
#[derive(Default)]
struct RevivedFromAfar;

impl Logic for RevivedFromAfar {
    fn ringer(&self, world: &Arc<dyn World>) -> Box<dyn Ring> {
        Box::new(Arming(Arc::clone(world)))
    }
}

/// An error of the listener itself is an error like others, and the event was an edge.
#[derive(Default)]
struct NeverLooks;

impl Logic for NeverLooks {
    fn dead(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}
