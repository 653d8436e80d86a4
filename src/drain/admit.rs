//! After the accept: a connection is admitted or refused, and refusals have a rate.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::attempt::Missed;
use super::backend::{Backend, Peek};
use super::core::{AcceptCore, Parts, PassEnd};
use super::counters::AtomicCounters;
use super::errno::Errno;
use super::phase::BlockReason;
use crate::admission::connection_info::{ConnectionInfo, ConnectionSource, Credentials};
use crate::admission::filter::{Filter, Reserved};
use crate::admission::refusal::{Cause, Refusal, Rejection};
use crate::admission::semaphore::Semaphore;

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    /// Admits a connection, or refuses it (P5). Whatever panics here, the connection is closed first, and what was
    /// reserved for it is cancelled after that (P4).
    #[inline(always)]
    pub(super) fn admit(&mut self, stream: B::Stream, reserved: F::Permit) -> Result<Parts<B, G, F>, Missed> {
        let mut reserved = Reserved::new(&self.filter, reserved);
        if self.permit.is_none() {
            // At a gate that sheds.
            self.permit = self.gate.try_acquire();
        }
        // Declared last, so that it is closed first.
        let arrival = Arrival {
            backend: &self.backend,
            counters: &self.shared.counters,
            stream: Some(stream),
            peer: &self.peer,
        };
        let rejection = match self.permit {
            None => Rejection::new(Cause::Full, self.gate.sheds().cloned().unwrap_or(Refusal::Close)),
            Some(_) => match reserved.admit(&ConnectionInfo::new(&arrival)) {
                Err(rejection) => rejection,
                Ok(filters) => {
                    let stream =
                        arrival.deliver().expect("a connection that is neither refused nor delivered");
                    let permit = self.permit.take().expect("it was checked above");
                    return Ok((stream, permit, filters));
                }
            },
        };
        arrival.refuse(&rejection);
        drop(reserved);
        self.cancel_permit();
        self.has_refused();
        Err(Missed::Retry)
    }

    /// Accepts one connection, and refuses it.
    #[cold]
    pub(super) fn accept_to_refuse(&mut self, rejection: &Rejection) -> Missed {
        match self.attempt() {
            Ok(stream) => {
                self.refuse_arrival(stream, rejection);
                self.cancel_permit();
                Missed::Retry
            }
            Err(missed) => missed,
        }
    }

    /// Counts one more refusal. If it was the last for now, nothing is accepted until the next may be refused.
    #[cold]
    fn has_refused(&mut self) {
        if let Some(rate) = &self.refusal_rate {
            let now = self.shared.now();
            // Always granted: otherwise the refusal before would have stopped the pass.
            let _ = rate.take(now);
            let wait = rate.wait(now);
            self.refusals_resume_at = (!wait.is_zero()).then(|| now.saturating_add(wait));
        }
        // Last: a subscriber may panic.
        #[cfg(feature = "tracing")]
        self.refusal_log.refused(self.shared.now(), &self.shared.counters);
    }

    /// Checks that another connection may be refused: which one will be is unknown before it is accepted.
    #[cold]
    pub(super) fn may_refuse(&mut self) -> Result<(), PassEnd> {
        let now = self.now();
        let left = self.refusals_resume_at.map_or(Duration::ZERO, |until| until.saturating_sub(now));
        if left.is_zero() || self.refuses_pending() {
            self.refusals_resume_at = None;
            return Ok(());
        }
        Err(PassEnd::Block(BlockReason::Throttled(left)))
    }

    /// Out of descriptors: accepts pending connections with the reserve descriptor and refuses them, within the budget.
    /// Returns whether that has shown that the listener is closed, and its queue empty.
    #[cold]
    pub(super) fn refuse_when_exhausted(&mut self, errno: Errno) -> Option<PassEnd> {
        let (cause, refusal) = match (&self.ending, &self.config.when_exhausted) {
            (Some(ending), _) if ending.refuses().is_some() => (Cause::Shutdown, ending.refusal().clone()),
            (_, Some(refusal)) => (Cause::OutOfDescriptors, refusal.clone()),
            _ => return None,
        };
        if !errno.is_descriptors() {
            return None;
        }
        let rejection = Rejection::new(cause, refusal);
        // The errno says nothing about the queue, and an accept on an empty one costs more than a look (K51).
        while self.pass.left > 0
            && !self.notifier.requests().interrupts()
            && self.may_refuse().is_ok()
            && matches!(self.backend.peek(), Peek::Pending | Peek::ClosedPending)
        {
            if let Missed::End(end) = self.refuse_with_reserve(&rejection)? {
                return matches!(end, PassEnd::ListenerClosed(_)).then_some(end);
            }
        }
        None
    }

    /// Accepts one connection with the reserve descriptor and refuses it; `None` without a reserve, or beyond the budget.
    pub(super) fn refuse_with_reserve(&mut self, rejection: &Rejection) -> Option<Missed> {
        if self.pass.left == 0 || !self.backend.release_reserve() {
            return None;
        }
        let missed = self.accept_to_refuse(rejection);
        // Another thread may have taken the descriptor: then the end of a later pass opens the reserve.
        self.reserve_fd_missing = !self.backend.make_reserve();
        Some(missed)
    }

    /// Refuses a connection for which nothing was reserved.
    pub(super) fn refuse_arrival(&mut self, stream: B::Stream, rejection: &Rejection) {
        let (backend, counters) = (&self.backend, &self.shared.counters);
        Arrival { backend, counters, stream: Some(stream), peer: &None }.refuse(rejection);
        self.has_refused();
    }
}

/// A connection that was accepted, until it is counted. Refused when dropped, if a filter panics.
struct Arrival<'a, B: Backend> {
    backend: &'a B,
    counters: &'a AtomicCounters,
    stream: Option<B::Stream>,
    peer: &'a Option<SocketAddr>,
}

impl<B: Backend> Arrival<'_, B> {
    #[inline]
    fn deliver(mut self) -> Option<B::Stream> {
        self.counters.delivered.add();
        self.stream.take()
    }

    #[cold]
    fn refuse(mut self, rejection: &Rejection) {
        if let Some(stream) = self.stream.take() {
            self.counters.refused(rejection.cause);
            self.backend.refuse(stream, &rejection.refusal);
        }
    }
}

impl<B: Backend> ConnectionSource for Arrival<'_, B> {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer.or_else(|| self.backend.peer(self.stream.as_ref()?))
    }

    fn queue_time(&self) -> Option<Duration> {
        self.backend.queue_time(self.stream.as_ref()?)
    }

    fn credentials(&self) -> Option<Credentials> {
        self.backend.credentials(self.stream.as_ref()?)
    }

    fn is_in_group(&self, gid: u32) -> Option<bool> {
        self.backend.is_in_group(self.stream.as_ref()?, gid)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.backend.stream_fd(self.stream.as_ref()?)
    }
}

impl<B: Backend> Drop for Arrival<'_, B> {
    #[inline]
    fn drop(&mut self) {
        let Self { backend, counters, peer, .. } = *self;
        if self.stream.is_some() {
            Arrival { backend, counters, stream: self.stream.take(), peer }.refuse(&Rejection::close());
        }
    }
}
