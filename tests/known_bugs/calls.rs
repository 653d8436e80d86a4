//! The calls that an accept loop makes, with the types erased, so that a hook of a loop is a plain function.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::Refusal;
use epoll_acceptor::sim::{
    Backend, Enqueued, InstrumentedBackend, Notifier, Peek, Semaphore, Tracked, WaitFor, Wake,
};
use epoll_acceptor::socket::Errno;

/// A permit of any gate.
pub(crate) type Permit = Box<dyn Any + Send>;

/// A connection of any backend.
pub(crate) type Stream = Box<dyn Accepted>;

/// An accepted connection.
pub(crate) trait Accepted: Send {
    /// Notes that the user has it now.
    fn deliver(&self);
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// The backend and the gate of one acceptor.
pub(crate) trait Calls: Send + Sync {
    fn accept(&self) -> Result<Stream, Errno>;
    fn refuse(&self, stream: Stream);
    fn peek(&self) -> Peek;
    fn arm(&self) -> Result<(), Errno>;
    fn disarm(&self) -> Result<(), Errno>;
    fn remove(&self);
    fn rewake_other_epolls(&self);
    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno>;
    fn now(&self) -> Duration;
    fn waker(&self) -> Box<dyn Wake>;
    fn sheds(&self) -> bool;
    fn try_acquire(&self) -> Option<Permit>;
    fn cancel(&self, permit: Permit);
    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Permit>;
    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Permit>;
}

/// A backend and a gate of one type each.
pub(crate) struct Typed<B, G> {
    pub(crate) backend: InstrumentedBackend<B>,
    pub(crate) gate: G,
}

impl<S: Send + 'static> Accepted for Tracked<S> {
    fn deliver(&self) {
        Self::deliver(self);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl<B, G> Calls for Typed<B, G>
where
    B: Backend<Stream: Send> + 'static,
    G: Semaphore<Permit: Send> + 'static,
{
    fn accept(&self) -> Result<Stream, Errno> {
        self.backend.accept(None).map(|stream| Box::new(stream) as Stream)
    }

    fn refuse(&self, stream: Stream) {
        let stream = stream.into_any().downcast::<Tracked<B::Stream>>();
        self.backend.refuse(*stream.expect("accepted from this backend"), &Refusal::Close);
    }

    fn peek(&self) -> Peek {
        self.backend.peek()
    }

    fn arm(&self) -> Result<(), Errno> {
        self.backend.arm()
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.backend.disarm()
    }

    fn remove(&self) {
        self.backend.remove();
    }

    fn rewake_other_epolls(&self) {
        self.backend.rewake_other_epolls();
    }

    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        self.backend.set_alarm(after)
    }

    fn now(&self) -> Duration {
        self.backend.clock().now()
    }

    fn waker(&self) -> Box<dyn Wake> {
        self.backend.waker()
    }

    fn sheds(&self) -> bool {
        self.gate.sheds().is_some()
    }

    fn try_acquire(&self) -> Option<Permit> {
        self.gate.try_acquire().map(erase)
    }

    fn cancel(&self, permit: Permit) {
        self.gate.cancel(*permit.downcast::<G::Permit>().expect("acquired from this gate"));
    }

    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Permit> {
        match self.gate.enqueue(notifier, wait_for) {
            Enqueued::Waiting => Enqueued::Waiting,
            Enqueued::Acquired(permit) => Enqueued::Acquired(erase(permit)),
        }
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Permit> {
        self.gate.dequeue(notifier).map(erase)
    }
}

fn erase(permit: impl Any + Send) -> Permit {
    Box::new(permit)
}
