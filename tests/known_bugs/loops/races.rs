//! Loops that strand a connection by a race between two of their steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use epoll_acceptor::sim::{Action, Enqueued, Handle, Notifier, Peek, WaitFor, Wake};

use crate::calls::Calls;
use crate::hand_loop::{HandLoop, Pass, Reason};
use crate::loop_hooks::{LoopHooks, Next, Reference};
use crate::search::{Mutant, edge, level, limit, once, twice};

pub(crate) fn mutants() -> Vec<Mutant> {
    vec![
        Mutant::of_loop::<LateFlag>(&["S5"], "P1", edge(2), twice(&[Action::Pause(0), Action::Resume(0)])),
        Mutant::of_loop::<ArmedByAnotherThread>(&["S15"], "P1", limit(1, level(2)), once(&[Action::Free])),
        Mutant::of_loop::<FlagAndTimer>(&["S21"], "P1", limit(1, level(2)), once(&[Action::Free])),
        Mutant::of_loop::<OverwritesTheRelease>(&["S22"], "P1", limit(1, level(2)), once(&[Action::Free])),
    ]
}

/// Notes that more may be pending only after the user's code has run, which may have resumed the loop by then.
#[derive(Default)]
struct LateFlag {
    flags: Arc<LateFlags>,
}

#[derive(Default)]
struct LateFlags {
    paused: AtomicBool,
    owed: AtomicBool,
}

struct LateHandle(Arc<LateFlags>, Arc<Notifier>);

impl LoopHooks for LateFlag {
    fn may_accept(&mut self, pass: &mut Pass<'_>) -> Next {
        if self.flags.paused.load(SeqCst) {
            pass.disarm();
            self.flags.owed.store(true, SeqCst);
            return Next::Leave;
        }
        Reference.may_accept(pass)
    }

    fn handle(&self, hand_loop: &HandLoop) -> Arc<dyn Handle> {
        Arc::new(LateHandle(Arc::clone(&self.flags), Arc::clone(&hand_loop.notifier)))
    }
}

impl Handle for LateHandle {
    fn pause(&self) {
        self.0.paused.store(true, SeqCst);
    }

    fn resume(&self) {
        self.0.paused.store(false, SeqCst);
        if self.0.owed.swap(false, SeqCst) {
            self.1.notify();
        }
    }

    fn stop(&self) {
        self.1.stop();
    }
}

/// The thread that releases a permit arms the listener itself; the owner may be about to disarm it.
#[derive(Default)]
struct ArmedByAnotherThread;

/// Arms the listener instead of waking the owner.
pub(crate) struct Arming(pub Arc<dyn Calls>);

impl Wake for Arming {
    fn wake(&self) {
        let _ = self.0.arm();
    }
}

impl LoopHooks for ArmedByAnotherThread {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        if pass.calls.peek() == Peek::Empty {
            return Next::Leave;
        }
        let next = pass.wait_for_permit();
        if next == Next::Leave {
            pass.disarm();
        }
        next
    }

    fn waker(&self, calls: &Arc<dyn Calls>) -> Box<dyn Wake> {
        Box::new(Arming(Arc::clone(calls)))
    }
}

/// Asks to be woken only if the flag is still down, and the releasing thread has just raised it.
#[derive(Default)]
struct FlagAndTimer {
    flags: Arc<Flags>,
}

#[derive(Default)]
struct Flags {
    accepting: AtomicBool,
    asleep: AtomicBool,
}

struct FlagWaker(Arc<Flags>, Box<dyn Wake>);

impl Wake for FlagWaker {
    fn wake(&self) {
        self.0.accepting.store(true, SeqCst);
        if self.0.asleep.swap(false, SeqCst) {
            self.1.wake();
        }
    }
}

impl LoopHooks for FlagAndTimer {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        self.flags.accepting.store(false, SeqCst);
        let next = pass.block(Reason::Full);
        if next == Next::Leave && !self.flags.accepting.load(SeqCst) {
            self.flags.asleep.store(true, SeqCst);
        }
        next
    }

    fn waker(&self, calls: &Arc<dyn Calls>) -> Box<dyn Wake> {
        Box::new(FlagWaker(Arc::clone(&self.flags), calls.waker()))
    }
}

/// Disarms after it has found the gate full, and overlooks a release in between.
#[derive(Default)]
struct OverwritesTheRelease;

impl LoopHooks for OverwritesTheRelease {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.disarm();
        if let Enqueued::Acquired(permit) = pass.calls.enqueue(&pass.notifier, WaitFor::Permit) {
            pass.calls.cancel(permit);
        }
        Next::Leave
    }
}
