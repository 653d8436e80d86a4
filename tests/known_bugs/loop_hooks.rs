//! An accept loop in replaceable hooks.
//!
//! With the hooks of [`Reference`] it keeps every promise. A mutant replaces one hook, so whatever it breaks is the
//! fault of that hook.

use std::sync::Arc;

use epoll_acceptor::Counters;
use epoll_acceptor::sim::{Handle, Peek, Requests, Wake};
use epoll_acceptor::socket::{Errno, ErrnoClass};

use crate::calls::{Calls, Permit, Stream};
use crate::hand_loop::{HandLoop, Pass, Reason};

/// What the loop does after a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Again,
    Leave,
    /// Leaves, and tells the owner that the listener is closed.
    ListenerClosed,
}

/// The hooks of a hand-written loop. Those that a mutant does not replace are correct.
pub(crate) trait LoopHooks: Send {
    /// Runs before the first event.
    fn built(&mut self, _: &mut HandLoop) {}

    /// Answers an event. Returns whether the owner learns that the listener is closed.
    fn run(&mut self, pass: &mut Pass<'_>) -> bool {
        let requests = pass.notifier.take();
        (pass.left, pass.taken) = (pass.budget, 0);
        if pass.over {
            return false;
        }
        let next = match self.begin(pass, requests) {
            Next::Again => self.drain(pass),
            other => other,
        };
        self.end(pass);
        pass.cancel_granted();
        next == Next::ListenerClosed
    }

    /// Decides whether this pass accepts.
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if requests.stop() {
            return pass.stop();
        }
        if requests.paused() {
            return self.paused(pass);
        }
        if pass.alarm_is_due() || requests.notified() {
            return pass.listen();
        }
        pass.block(Reason::Early)
    }

    fn drain(&mut self, pass: &mut Pass<'_>) -> Next {
        loop {
            let next = match self.may_accept(pass) {
                Next::Again => self.accept_one(pass),
                other => other,
            };
            if next != Next::Again {
                return next;
            }
        }
    }

    /// One attempt, from the permit to the connection.
    fn accept_one(&mut self, pass: &mut Pass<'_>) -> Next {
        let permit = pass.granted.take().or_else(|| pass.calls.try_acquire());
        if permit.is_none() && !pass.calls.sheds() {
            return self.full(pass);
        }
        let accepted = pass.accept();
        self.charge(pass, accepted.as_ref().err().copied());
        match (accepted, permit) {
            (Ok(stream), Some(permit)) => self.accepted(pass, stream, permit),
            (Ok(stream), None) => self.shed(pass, stream),
            (Err(errno), permit) => {
                if let Some(permit) = permit {
                    self.unused(pass, permit, errno);
                }
                self.failed(pass, errno)
            }
        }
    }

    /// Runs before each attempt.
    fn may_accept(&mut self, pass: &mut Pass<'_>) -> Next {
        let requests = pass.notifier.requests();
        if requests.stop() {
            return pass.stop();
        }
        if requests.paused() {
            return self.paused(pass);
        }
        if pass.left == 0 {
            return self.spent(pass);
        }
        Next::Again
    }

    fn paused(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.block(Reason::Paused)
    }

    /// The budget is used up.
    fn spent(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.rearm();
        Next::Leave
    }

    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.block(Reason::Full)
    }

    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.deliver(stream, permit);
        Next::Again
    }

    fn shed(&mut self, pass: &mut Pass<'_>, stream: Stream) -> Next {
        pass.refuse(stream);
        Next::Again
    }

    /// Charges the budget for an attempt.
    fn charge(&mut self, pass: &mut Pass<'_>, _failure: Option<Errno>) {
        pass.left -= 1;
    }

    /// Takes back a permit that was not used.
    fn unused(&mut self, pass: &mut Pass<'_>, permit: Permit, _: Errno) {
        pass.calls.cancel(permit);
    }

    fn class(&self, errno: Errno) -> ErrnoClass {
        errno.class()
    }

    fn failed(&mut self, pass: &mut Pass<'_>, errno: Errno) -> Next {
        match self.class(errno) {
            ErrnoClass::Consumed | ErrnoClass::Interrupted => Next::Again,
            ErrnoClass::Empty => self.empty(pass),
            ErrnoClass::Resource => self.exhausted(pass),
            ErrnoClass::Fatal => self.fatal(pass),
        }
    }

    fn empty(&mut self, pass: &mut Pass<'_>) -> Next {
        match pass.calls.peek() {
            _ if pass.draining => pass.close(),
            Peek::Closed => pass.close(),
            Peek::ClosedPending => {
                pass.draining = true;
                Next::Again
            }
            // Pending: another consumer took the connection, or one has arrived since, which is an event of its own.
            Peek::Empty | Peek::Pending => Next::Leave,
        }
    }

    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.block(Reason::Exhausted)
    }

    fn fatal(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.close()
    }

    /// The one exit of every pass.
    fn end(&mut self, _: &mut Pass<'_>) {}

    /// The owner drops the loop.
    fn dropped(&mut self, hand_loop: &mut HandLoop) {
        if !hand_loop.over {
            hand_loop.stop_listening(None, |calls| calls.remove());
        }
    }

    /// Returns how other threads command it.
    fn handle(&self, hand_loop: &HandLoop) -> Arc<dyn Handle> {
        Arc::clone(&hand_loop.notifier) as Arc<dyn Handle>
    }

    /// Returns how other threads wake it.
    fn waker(&self, calls: &Arc<dyn Calls>) -> Box<dyn Wake> {
        calls.waker()
    }

    fn counters(&self, hand_loop: &HandLoop) -> Counters {
        hand_loop.counters.clone()
    }
}

/// The loop without a fault.
#[derive(Default)]
pub(crate) struct Reference;

impl LoopHooks for Reference {}
