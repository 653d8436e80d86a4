//! The second phase: a connection that was taken is let in or refused, and how fast it may be refused.

use std::net::SocketAddr;
use std::time::Duration;

use super::backend::{Backend, Peek};
use super::core::{Drain, End};
use super::counters::Tally;
use super::errno::{Errno, ErrnoClass};
use super::sleep::Why;
use super::strategy::Strategy;
use crate::admission::connection::Connection;
use crate::admission::newcomer::{ConnectionInfo, Credentials};
use crate::admission::policy::{Admission, Reserve};
use crate::admission::refusal::{Cause, Refusal, Rejection};

impl<P: Backend, S: Strategy, A: Admission> Drain<P, S, A> {
    /// Lets a connection in, or refuses it; without a place from the policy, it is asked for one now.
    #[inline]
    pub(super) fn let_in(
        &mut self,
        stream: P::Stream,
        peer: Option<SocketAddr>,
        place: Option<Reserve<A::Permit>>,
    ) -> Option<Connection<P::Stream, A::Permit>> {
        match place {
            Some(Reserve::Room(permit)) => self.let_in_with(stream, peer, permit),
            place => self.let_in_or_refuse(stream, peer, place),
        }
    }

    #[inline]
    fn let_in_with(
        &mut self,
        stream: P::Stream,
        peer: Option<SocketAddr>,
        mut permit: A::Permit,
    ) -> Option<Connection<P::Stream, A::Permit>> {
        let mut here = self.unsettled(stream, peer);
        match self.admission.admit(&here, &mut permit) {
            Ok(()) => here.deliver().map(|stream| Connection::new(stream, permit)),
            Err(denied) => {
                here.refuse(&denied);
                drop(here);
                self.admission.cancel(permit);
                self.has_refused();
                None
            }
        }
    }

    #[cold]
    fn let_in_or_refuse(
        &mut self,
        stream: P::Stream,
        peer: Option<SocketAddr>,
        place: Option<Reserve<A::Permit>>,
    ) -> Option<Connection<P::Stream, A::Permit>> {
        let mut here = self.unsettled(stream, peer);
        let denied = match place.unwrap_or_else(|| self.admission.reserve()) {
            Reserve::Room(permit) => {
                let stream = here.stream.take()?;
                drop(here);
                return self.let_in_with(stream, peer, permit);
            }
            Reserve::Shed(denied) => denied,
            // It said that it would not. The connection is here, and has no place.
            Reserve::Full => Rejection::new(Cause::Full, Refusal::Close),
            Reserve::NotBefore(_) => Rejection::new(Cause::Rate, Refusal::Close),
        };
        here.refuse(&denied);
        drop(here);
        self.has_refused();
        None
    }

    #[inline]
    fn unsettled(&self, stream: P::Stream, peer: Option<SocketAddr>) -> Unsettled<'_, P> {
        Unsettled { port: &self.port, tally: &self.published.tally, stream: Some(stream), peer }
    }

    /// One more was refused: if that was the last for now, nothing is taken until the next may be.
    #[cold]
    fn has_refused(&mut self) {
        if let Some(refusals) = &self.refusals {
            let now = self.port.now();
            // It was allowed: the one before it would have held it back.
            let _ = refusals.take(now);
            let wait = refusals.wait(now);
            self.hold = (!wait.is_zero()).then(|| now.saturating_add(wait));
        }
        // Last: a subscriber may panic.
        #[cfg(feature = "tracing")]
        self.told.refused(self.port.now(), &self.published.tally);
    }

    /// Whether the next refusal has still to be waited for. Who will be refused is not known before it is taken.
    #[cold]
    pub(super) fn holds_back(&mut self) -> Result<(), End> {
        let left = self.hold.map_or(Duration::ZERO, |until| until.saturating_sub(self.port.now()));
        if left.is_zero() {
            self.hold = None;
            return Ok(());
        }
        Err(End::Asleep(Why::Throttled(left)))
    }

    /// Descriptors have run out: whoever waits is taken with the one in reserve and told so, within the budget.
    #[cold]
    pub(super) fn refuse_for_shortage(&mut self, errno: Errno) {
        let Some(refusal) = self.plan.when_exhausted.clone() else { return };
        if !errno.is_descriptors() {
            return;
        }
        // The errno says nothing about the queue, and an accept that finds it empty costs more than a look.
        while self.pass.left > 0
            && !self.bell.commands()
            && self.holds_back().is_ok()
            && matches!(self.port.peek(), Peek::Waiting | Peek::ShutQueued)
            && self.port.give_up_reserve()
        {
            self.published.tally.attempts.add();
            self.pass.left -= 1;
            let taken = self.port.accept();
            let goes_on = match taken {
                Ok(stream) => {
                    self.pass.took();
                    let mut here = self.unsettled(stream, None);
                    here.refuse(&Rejection::new(Cause::OutOfDescriptors, refusal.clone()));
                    drop(here);
                    self.has_refused();
                    true
                }
                Err(errno) => {
                    self.attempt_failed(errno);
                    matches!(errno.class(), ErrnoClass::Consumed | ErrnoClass::Interrupted)
                }
            };
            // Another thread may have been quicker: then the next pass that finds enough makes it.
            self.lacks_reserve = !self.port.make_reserve();
            if self.lacks_reserve || !goes_on {
                break;
            }
        }
    }
}

/// A connection that was taken, until it is counted: refused, if the policy panics.
struct Unsettled<'a, P: Backend> {
    port: &'a P,
    tally: &'a Tally,
    stream: Option<P::Stream>,
    peer: Option<SocketAddr>,
}

impl<P: Backend> Unsettled<'_, P> {
    #[inline]
    fn deliver(&mut self) -> Option<P::Stream> {
        self.tally.delivered.add();
        self.stream.take()
    }

    #[cold]
    fn refuse(&mut self, denied: &Rejection) {
        if let Some(stream) = self.stream.take() {
            self.tally.refused(denied.cause);
            self.port.refuse(stream, &denied.refusal);
        }
    }
}

impl<P: Backend> ConnectionInfo for Unsettled<'_, P> {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer.or_else(|| self.port.peer(self.stream.as_ref()?))
    }

    fn queued(&self) -> Option<Duration> {
        self.port.age(self.stream.as_ref()?)
    }

    fn credentials(&self) -> Option<Credentials> {
        self.port.credentials(self.stream.as_ref()?)
    }

    fn is_in_group(&self, gid: u32) -> Option<bool> {
        self.port.is_in_group(self.stream.as_ref()?, gid)
    }
}

impl<P: Backend> Drop for Unsettled<'_, P> {
    #[inline]
    fn drop(&mut self) {
        if self.stream.is_some() {
            self.refuse(&Rejection::from(Refusal::Close));
        }
    }
}
