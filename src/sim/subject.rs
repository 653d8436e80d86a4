//! What is put to the test: an acceptor of this crate, or any accept loop that someone has written over the
//! seam.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::pointed::{InstrumentedBackend, InstrumentedPermit, Tracked};
use super::script::{Leave, Setup};
use crate::admission::bell::Bell;
use crate::admission::connection::Connection;
use crate::admission::policy::Admission;
use crate::drain::acceptor::{Acceptor, Steps};
use crate::drain::backend::Backend;
use crate::drain::core::Drain;
use crate::drain::counters::Counters;
use crate::drain::shared::Control;
use crate::drain::state::State;
use crate::drain::strategy::Strategy;

/// An accept loop under test.
pub trait Subject: Send {
    /// Answers one event: takes what it wants and hands each connection to `keep`. Tells whether the owner
    /// was told that the listener is dead.
    fn turn(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool;

    /// How others pause, resume and stop it, if they can.
    fn control(&self) -> Option<Arc<dyn Handle>> {
        None
    }

    /// What it says of itself, if it does.
    fn counters(&self) -> Option<Counters> {
        None
    }
}

/// How others pause, resume and stop a subject. No method may block.
pub trait Handle: Send + Sync {
    /// As [`Control::pause`].
    fn pause(&self);
    /// As [`Control::resume`].
    fn resume(&self);
    /// As [`Control::stop`].
    fn stop(&self);
    /// What the subject is doing, if it tells.
    fn state(&self) -> Option<State> {
        None
    }
}

impl Handle for Control {
    fn pause(&self) {
        Self::pause(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn state(&self) -> Option<State> {
        Some(Self::state(self))
    }
}

/// For a loop that keeps its wishes in a bell.
impl Handle for Bell {
    fn pause(&self) {
        Self::pause(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }

    fn stop(&self) {
        Self::stop(self);
    }
}

/// A connection as a subject delivers it.
pub type Delivered<P, A> = Connection<Tracked<P>, InstrumentedPermit<A>>;

/// Makes the subject of a run.
pub trait Factory {
    /// Builds an accept loop on a port, behind an admission.
    fn make<P, A>(&self, port: InstrumentedBackend<P>, admission: A, case: &Setup) -> Box<dyn Subject>
    where
        P: Backend + 'static,
        P::Stream: Send,
        A: Admission + Clone + 'static,
        A::Permit: Send;
}

/// The acceptors of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

/// An acceptor of this crate, driven by an owner who leaves the loop as the case says.
struct Owner<P: Backend, S: Strategy, A: Admission> {
    acceptor: Drain<InstrumentedBackend<P>, S, A>,
    leave: Leave,
    skipped: bool,
}

impl Factory for Real {
    fn make<P, A>(&self, port: InstrumentedBackend<P>, admission: A, case: &Setup) -> Box<dyn Subject>
    where
        P: Backend + 'static,
        P::Stream: Send,
        A: Admission + Clone + 'static,
        A::Permit: Send,
    {
        Box::new(Owner {
            acceptor: Drain::new(port, case.trigger, admission, case.plan()),
            leave: case.leave,
            skipped: false,
        })
    }
}

/// The panic of [`Leave::Panic`], and of whatever else a case wants the owner of an acceptor to survive:
/// throw it with `std::panic::resume_unwind`.
#[derive(Clone, Copy, Debug)]
pub struct InjectedPanic;

impl<P, S, A> Subject for Owner<P, S, A>
where
    P: Backend,
    P::Stream: Send + 'static,
    S: Strategy,
    A: Admission,
    A::Permit: Send + 'static,
{
    fn turn(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool {
        let (most, leave) = match self.leave {
            Leave::AtTheEnd => (u32::MAX, self.leave),
            Leave::Break(most) | Leave::Forget(most) | Leave::Panic(most) => (most, self.leave),
            Leave::Skip if self.skipped => (u32::MAX, Leave::AtTheEnd),
            Leave::Skip => (0, Leave::Forget(0)),
        };
        self.skipped = !self.skipped;
        let mut dead = false;
        #[allow(clippy::forget_non_drop, reason = "that forgetting is as safe as dropping is what is tested")]
        let body = catch_unwind(AssertUnwindSafe(|| {
            let mut pass = self.acceptor.ready();
            let mut served = 0;
            while served < most {
                match pass.next() {
                    Some(Ok(connection)) => {
                        connection.deliver();
                        keep(Box::new(connection));
                    }
                    Some(Err(_)) => dead = true,
                    None => return,
                }
                served += 1;
            }
            match leave {
                Leave::Forget(_) => std::mem::forget(pass),
                Leave::Panic(_) => std::panic::resume_unwind(Box::new(InjectedPanic)),
                _ => {}
            }
        }));
        if let Err(thrown) = body {
            if !thrown.is::<InjectedPanic>() {
                std::panic::resume_unwind(thrown);
            }
        }
        dead
    }

    fn control(&self) -> Option<Arc<dyn Handle>> {
        Some(Arc::new(self.acceptor.handle()))
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.acceptor.counters())
    }
}
