//! What is tested: an acceptor of this crate, or an accept loop that a test has written over a backend.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::instrumented::{InstrumentedBackend, Tracked};
use super::script::{Leave, Setup};
use crate::admission::connection::Connection;
use crate::admission::filter::Filter;
use crate::admission::notifier::Notifier;
use crate::admission::semaphore::Semaphore;
use crate::drain::acceptor::Acceptor;
use crate::drain::backend::Backend;
use crate::drain::control::Control;
use crate::drain::core::AcceptCore;
use crate::drain::counters::Counters;
use crate::drain::state::State;

/// An accept loop under test.
pub trait Subject: Send {
    /// Answers one event: accepts, and passes each connection to `keep`. Returns whether the owner was told that the
    /// listener is closed.
    fn pass(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool;

    /// Whether its last pass was left open: the next call goes on with it.
    fn is_in_pass(&self) -> bool {
        false
    }

    /// How other threads pause, resume and stop it.
    fn control(&self) -> Option<Arc<dyn Handle>> {
        None
    }

    /// Its own counters.
    fn counters(&self) -> Option<Counters> {
        None
    }
}

/// How other threads pause, resume and stop a subject. No method may block, and each is idempotent.
pub trait Handle: Send + Sync {
    /// Pauses, unless it is paused.
    fn pause(&self);
    /// Ends the pause.
    fn resume(&self);
    /// As [`Control::stop`].
    fn stop(&self);
    /// What the subject is doing.
    fn state(&self) -> Option<State> {
        None
    }
}

impl Handle for Control {
    fn pause(&self) {
        Handle::pause(self.notifier());
    }

    fn resume(&self) {
        Handle::resume(self.notifier());
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn state(&self) -> Option<State> {
        Some(Self::state(self))
    }
}

/// For a loop that keeps its requests in a notifier.
impl Handle for Notifier {
    fn pause(&self) {
        if !self.requests().paused() {
            Self::pause(self);
        }
    }

    fn resume(&self) {
        if self.requests().paused() {
            Self::resume(self);
        }
    }

    fn stop(&self) {
        Self::stop(self);
    }
}

/// A connection as a subject delivers it.
pub type Delivered<B, G, F> = Connection<Tracked<B>, (<G as Semaphore>::Permit, <F as Filter>::Permit)>;

/// Makes the subject of a run.
pub trait Factory {
    /// Builds an accept loop on a backend, behind a gate and a filter.
    fn make<B, G, F>(
        &self,
        backend: InstrumentedBackend<B>,
        gate: G,
        filter: F,
        setup: &Setup,
    ) -> Box<dyn Subject>
    where
        B: Backend<Stream: Send> + 'static,
        G: Semaphore<Permit: Send> + Clone + 'static,
        F: Filter<Permit: Send> + Clone + 'static;
}

/// The acceptors of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

/// An acceptor of this crate, whose owner leaves the loop as the setup says.
struct Owner<B: Backend, G: Semaphore, F: Filter> {
    acceptor: AcceptCore<InstrumentedBackend<B>, G, F>,
    leave: Leave,
    skipped: bool,
}

impl Factory for Real {
    fn make<B, G, F>(
        &self,
        backend: InstrumentedBackend<B>,
        gate: G,
        filter: F,
        setup: &Setup,
    ) -> Box<dyn Subject>
    where
        B: Backend<Stream: Send> + 'static,
        G: Semaphore<Permit: Send> + Clone + 'static,
        F: Filter<Permit: Send> + Clone + 'static,
    {
        let acceptor = AcceptCore::new(backend, gate, filter, setup.config());
        Box::new(Owner { acceptor, leave: setup.leave, skipped: false })
    }
}

/// The payload of [`Leave::Panic`], and of every other panic that the owner of an acceptor survives: raise it with
/// `std::panic::resume_unwind`.
#[derive(Clone, Copy, Debug)]
pub struct InjectedPanic;

impl<B, G, F> Subject for Owner<B, G, F>
where
    B: Backend<Stream: Send + 'static>,
    G: Semaphore<Permit: Send + 'static>,
    F: Filter<Permit: Send + 'static>,
{
    fn pass(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool {
        let (max, leave) = match self.leave {
            Leave::AtTheEnd => (u32::MAX, self.leave),
            Leave::Break(max) | Leave::Forget(max) | Leave::Panic(max) => (max, self.leave),
            Leave::Skip if self.skipped => (u32::MAX, Leave::AtTheEnd),
            Leave::Skip => (0, Leave::Forget(0)),
        };
        self.skipped = !self.skipped;
        let mut closed = false;
        #[allow(clippy::forget_non_drop, reason = "what is tested is that forgetting is as safe as dropping")]
        let body = catch_unwind(AssertUnwindSafe(|| {
            let mut pass = self.acceptor.ready();
            let mut served = 0;
            while served < max {
                match pass.next() {
                    Some(Ok(connection)) => {
                        connection.deliver();
                        keep(Box::new(connection));
                    }
                    Some(Err(_)) => closed = true,
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
        if let Err(panic) = body {
            if !panic.is::<InjectedPanic>() {
                std::panic::resume_unwind(panic);
            }
        }
        closed
    }

    fn control(&self) -> Option<Arc<dyn Handle>> {
        Some(Arc::new(self.acceptor.control()))
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.acceptor.counters())
    }
}
