//! The seam and the admission of one acceptor, with the types erased: so that a piece of a loop is a plain
//! function.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::admission::Bell;
use epoll_acceptor::admission::{Ring, Until};
use epoll_acceptor::drain::{Backend, Errno, Peek};
use epoll_acceptor::sim::{InstrumentedBackend, Tracked};
use epoll_acceptor::{Admission, Line, Refusal, Reserve};

/// A place, whatever its type.
pub(crate) type Place = Box<dyn Any + Send>;

/// A connection, whatever its type.
pub(crate) trait Taken: Send {
    /// The user has it now.
    fn deliver(&self);
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

pub(crate) type Stream = Box<dyn Taken>;

/// The seam and the admission of one acceptor, with the types erased.
pub(crate) trait World: Send + Sync {
    fn accept(&self) -> Result<Stream, Errno>;
    fn refuse(&self, stream: Stream);
    fn peek(&self) -> Peek;
    fn arm(&self);
    fn disarm(&self);
    fn detach(&self);
    fn announce(&self);
    fn alarm(&self, after: Option<Duration>);
    fn now(&self) -> Duration;
    fn ringer(&self) -> Box<dyn Ring>;
    fn reserve(&self) -> Reserve<Place>;
    fn cancel(&self, place: Place);
    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line;
    fn leave(&self, bell: &Arc<Bell>) -> Option<Place>;
}

/// The two, of one type each.
pub(crate) struct Wired<P, A> {
    pub(crate) port: InstrumentedBackend<P>,
    pub(crate) admission: A,
}

impl<S: Send + 'static> Taken for Tracked<S> {
    fn deliver(&self) {
        Self::deliver(self);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl<P, A> World for Wired<P, A>
where
    P: Backend + 'static,
    P::Stream: Send,
    A: Admission<Permit: Send> + 'static,
{
    fn accept(&self) -> Result<Stream, Errno> {
        self.port.accept().map(|stream| Box::new(stream) as Stream)
    }

    fn refuse(&self, stream: Stream) {
        let stream = stream.into_any().downcast::<Tracked<P::Stream>>();
        self.port.refuse(*stream.expect("it came from this port"), &Refusal::Close);
    }

    fn peek(&self) -> Peek {
        self.port.peek()
    }

    fn arm(&self) {
        self.port.arm().expect("the simulated kernel has memory");
    }

    fn disarm(&self) {
        // Not registered any more is as silent.
        let _ = self.port.disarm();
    }

    fn detach(&self) {
        self.port.detach();
    }

    fn announce(&self) {
        self.port.announce();
    }

    fn alarm(&self, after: Option<Duration>) {
        self.port.alarm(after);
    }

    fn now(&self) -> Duration {
        self.port.now()
    }

    fn ringer(&self) -> Box<dyn Ring> {
        self.port.ringer()
    }

    fn reserve(&self) -> Reserve<Place> {
        match self.admission.reserve() {
            Reserve::Room(place) => Reserve::Room(Box::new(place)),
            Reserve::Full => Reserve::Full,
            Reserve::NotBefore(wait) => Reserve::NotBefore(wait),
            Reserve::Shed(denied) => Reserve::Shed(denied),
        }
    }

    fn cancel(&self, place: Place) {
        self.admission.cancel(*place.downcast::<A::Permit>().expect("it came from this admission"));
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        self.admission.stand(bell, until)
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Place> {
        self.admission.leave(bell).map(|place| Box::new(place) as Place)
    }
}
