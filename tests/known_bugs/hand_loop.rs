//! The state of an accept loop as people write it by hand, and the steps that its hooks are made of.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::sim::{
    Backend, Enqueued, Factory, Handle, InstrumentedBackend, Notifier, Peek, Policy, Semaphore, Setup,
    Subject, WaitFor,
};
use epoll_acceptor::socket::{Errno, ErrnoClass};
use epoll_acceptor::{Counters, Filter, Trigger};

use crate::calls::{Calls, Permit, Stream, Typed};
use crate::exclusive_exit::ExclusiveExit;
use crate::loop_hooks::{LoopHooks, Next};

/// The reason why a loop disarms its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Full,
    Exhausted,
    /// Still exhausted: the alarm has not expired.
    Early,
    Paused,
}

/// The state of an accept loop.
pub(crate) struct HandLoop {
    pub calls: Arc<dyn Calls>,
    pub notifier: Arc<Notifier>,
    pub edge: bool,
    /// How it stops listening, if its registration is exclusive.
    pub exclusive_exit: Option<ExclusiveExit>,
    pub budget: u32,
    /// Attempts left in this pass.
    pub left: u32,
    /// Connections taken in this pass.
    pub taken: u32,
    /// The kernel does not report the listener.
    pub disarmed: bool,
    pub over: bool,
    /// The listener was shut down with connections pending.
    pub draining: bool,
    pub delay: Duration,
    pub alarm_at: Option<Duration>,
    /// A permit that the wait queue handed over.
    pub granted: Option<Permit>,
    pub counters: Counters,
}

/// One pass over the accept queue.
pub(crate) struct Pass<'a> {
    hand_loop: &'a mut HandLoop,
    keep: &'a mut dyn FnMut(Box<dyn Any + Send>),
}

const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_millis(200);

impl HandLoop {
    /// Arms the listener and ends every reason to block. If the kernel has no memory for that, the alarm retries.
    pub(crate) fn listen(&mut self) -> Next {
        if self.disarmed {
            if self.calls.arm().is_err() {
                self.back_off();
                return Next::Leave;
            }
            self.disarmed = false;
        }
        self.end_reasons();
        Next::Again
    }

    /// Has the kernel report what is still queued, where it would not by itself.
    pub(crate) fn rearm(&mut self) {
        if self.edge && self.calls.arm().is_err() {
            self.disarmed = true;
            self.back_off();
        }
    }

    /// Disarms, if anything is pending: looks at the queue, disarms, and only then joins the wait queue.
    pub(crate) fn block(&mut self, reason: Reason) -> Next {
        match self.calls.peek() {
            Peek::Closed => return self.close(),
            Peek::Empty if reason != Reason::Paused => {
                self.listen();
                return Next::Leave;
            }
            Peek::ClosedPending => {
                self.disarmed = true;
                self.stop_listening(Some(reason), |calls| calls.remove());
            }
            Peek::Empty | Peek::Pending => self.disarm_for(Some(reason)),
        }
        match reason {
            Reason::Full => return self.wait_for_permit(),
            Reason::Exhausted => self.back_off(),
            Reason::Early => self.set_alarm_again(),
            Reason::Paused => self.end_reasons(),
        }
        Next::Leave
    }

    pub(crate) fn disarm(&mut self) {
        self.disarm_for(None);
    }

    fn disarm_for(&mut self, reason: Option<Reason>) {
        if !self.disarmed {
            self.disarmed = true;
            self.stop_listening(reason, |calls| {
                if calls.disarm().is_err() {
                    calls.remove();
                }
            });
        }
    }

    /// Stops listening by `leave`, after which the kernel reports no arrival here.
    pub(crate) fn stop_listening(&self, reason: Option<Reason>, leave: impl FnOnce(&dyn Calls)) {
        match self.exclusive_exit {
            Some(exit) => exit.carry_out(&*self.calls, reason, leave),
            None => leave(&*self.calls),
        }
    }

    pub(crate) fn wait_for_permit(&mut self) -> Next {
        match self.calls.enqueue(&self.notifier, WaitFor::Permit) {
            Enqueued::Waiting => {
                self.cancel_alarm();
                Next::Leave
            }
            Enqueued::Acquired(permit) => {
                self.granted = Some(permit);
                self.listen()
            }
        }
    }

    pub(crate) fn back_off(&mut self) {
        self.set_alarm(self.delay);
        self.delay = (self.delay * 2).min(DELAY_MAX);
        if let Enqueued::Acquired(permit) = self.calls.enqueue(&self.notifier, WaitFor::Release) {
            self.calls.cancel(permit);
        }
    }

    pub(crate) fn set_alarm(&mut self, after: Duration) {
        self.alarm_at = Some(self.calls.now() + after);
        if self.calls.set_alarm(Some(after)).is_err() {
            // Nothing else would end the wait.
            self.notifier.notify();
        }
    }

    pub(crate) fn cancel_alarm(&mut self) {
        if self.alarm_at.take().is_some() {
            // One that cannot be cancelled costs a needless pass.
            let _ = self.calls.set_alarm(None);
        }
    }

    pub(crate) fn alarm_is_due(&self) -> bool {
        self.alarm_at.is_none_or(|at| at <= self.calls.now())
    }

    fn set_alarm_again(&mut self) {
        if let Some(at) = self.alarm_at {
            self.set_alarm(at - self.calls.now());
        }
    }

    fn end_reasons(&mut self) {
        if let Some(permit) = self.calls.dequeue(&self.notifier) {
            self.granted = Some(permit);
        }
        self.cancel_alarm();
    }

    /// Hands a permit that was not used to the next waiter.
    pub(crate) fn cancel_granted(&mut self) {
        if let Some(permit) = self.granted.take() {
            self.calls.cancel(permit);
        }
    }

    pub(crate) fn stop(&mut self) -> Next {
        self.over = true;
        self.stop_listening(None, |calls| calls.remove());
        self.end_reasons();
        Next::Leave
    }

    pub(crate) fn close(&mut self) -> Next {
        self.stop();
        Next::ListenerClosed
    }

    /// One call of accept, counted.
    pub(crate) fn accept(&mut self) -> Result<Stream, Errno> {
        let counters = &mut self.counters;
        counters.attempts += 1;
        let accepted = self.calls.accept();
        match &accepted {
            Ok(_) => {
                self.taken += 1;
                self.delay = DELAY_MIN;
            }
            Err(errno) => match errno.class() {
                ErrnoClass::Consumed => counters.aborted += 1,
                ErrnoClass::Interrupted => counters.interrupted += 1,
                ErrnoClass::Empty => counters.empty += 1,
                ErrnoClass::Resource => {
                    counters.exhausted += 1;
                    counters.exhausted_other += 1;
                }
                ErrnoClass::Fatal => counters.fatal += 1,
            },
        }
        accepted
    }

    pub(crate) fn refuse(&mut self, stream: Stream) {
        self.count_refused();
        self.calls.refuse(stream);
    }

    pub(crate) fn count_refused(&mut self) {
        self.counters.refused += 1;
        self.counters.refused_full += 1;
    }
}

impl Pass<'_> {
    /// Hands a connection to the user, with its permit.
    pub(crate) fn deliver(&mut self, stream: Stream, permit: Permit) {
        self.hand_over(stream, Some(permit));
    }

    /// Hands a connection to the user, with a permit or without.
    pub(crate) fn hand_over(&mut self, stream: Stream, permit: Option<Permit>) {
        self.counters.delivered += 1;
        stream.deliver();
        // A tuple drops in order: closed first, released second.
        (self.keep)(Box::new((stream, permit)));
    }
}

impl Deref for Pass<'_> {
    type Target = HandLoop;

    fn deref(&self) -> &HandLoop {
        self.hand_loop
    }
}

impl DerefMut for Pass<'_> {
    fn deref_mut(&mut self) -> &mut HandLoop {
        self.hand_loop
    }
}

/// Makes hand-written loops with these hooks.
pub(crate) struct HandLoops(pub fn() -> Box<dyn LoopHooks>);

/// A hand-written loop under test.
struct HandSubject {
    hand_loop: HandLoop,
    hooks: Box<dyn LoopHooks>,
    handle: Arc<dyn Handle>,
}

impl Factory for HandLoops {
    fn make<B, G, F>(&self, backend: InstrumentedBackend<B>, gate: G, _: F, setup: &Setup) -> Box<dyn Subject>
    where
        B: Backend<Stream: Send> + 'static,
        G: Semaphore<Permit: Send> + Clone + 'static,
        F: Filter<Permit: Send> + Clone + 'static,
    {
        assert_eq!(setup.policy, Policy::Nothing, "these loops have no filter");
        let calls: Arc<dyn Calls> = Arc::new(Typed { backend, gate });
        let mut hooks = (self.0)();
        let mut hand_loop = HandLoop {
            notifier: Arc::new(Notifier::new(hooks.waker(&calls))),
            calls,
            edge: setup.trigger == Trigger::Edge,
            exclusive_exit: (setup.trigger == Trigger::Exclusive).then_some(ExclusiveExit::Rewakes),
            budget: setup.budget,
            left: 0,
            taken: 0,
            disarmed: false,
            over: false,
            draining: false,
            delay: DELAY_MIN,
            alarm_at: None,
            granted: None,
            counters: Counters::default(),
        };
        hooks.built(&mut hand_loop);
        let handle = hooks.handle(&hand_loop);
        Box::new(HandSubject { hand_loop, hooks, handle })
    }
}

impl Drop for HandSubject {
    fn drop(&mut self) {
        self.hooks.dropped(&mut self.hand_loop);
        // Whatever the hooks forget: a permit that was handed over goes to the next waiter.
        self.hand_loop.end_reasons();
        self.hand_loop.cancel_granted();
    }
}

impl Subject for HandSubject {
    fn pass(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool {
        self.hooks.run(&mut Pass { hand_loop: &mut self.hand_loop, keep })
    }

    fn control(&self) -> Option<Arc<dyn Handle>> {
        Some(Arc::clone(&self.handle))
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.hooks.counters(&self.hand_loop))
    }
}
