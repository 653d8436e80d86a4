//! One accept: its permits are reserved, accept4 is called, and the connection is admitted or refused.
//!
//! `inline(always)`: otherwise the compiler leaves calls and copies in the path of each connection, and
//! `cargo bench -p benches --bench instructions` exceeds its bound.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::backend::{Backend, Peek};
use super::core::{AcceptCore, Parts, PassEnd};
use super::counters::AtomicCounters;
use super::errno::{Errno, ErrnoClass};
use super::phase::BlockReason;
use super::shutdown::Ending;
use super::trigger::EmptyCheck;
use crate::admission::connection_info::{ConnectionInfo, ConnectionSource, Credentials};
use crate::admission::filter::{Filter, Reservation, Reserved};
use crate::admission::refusal::{Cause, Refusal, Rejection};
use crate::admission::semaphore::Semaphore;

/// The reason why an attempt delivers no connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missed {
    /// Another connection may be pending.
    Retry,
    End(PassEnd),
}

impl From<PassEnd> for Missed {
    fn from(end: PassEnd) -> Self {
        Self::End(end)
    }
}

/// The number of futile attempts in a row (consumed, interrupted, or empty although a connection is pending) that are
/// treated as exhaustion. Far more than any kernel was seen to return.
const FUTILE_ACCEPTS_MAX: u32 = 64;

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    #[inline(always)]
    pub(super) fn accept_one(&mut self) -> Result<Parts<B, G, F>, Missed> {
        self.may_accept()?;
        let reserved = match self.reserve()? {
            Reservation::Granted(permit) => permit,
            Reservation::RetryAfter(wait) => return Err(PassEnd::Block(BlockReason::Throttled(wait)).into()),
            Reservation::Rejected(rejection) => return Err(self.accept_to_refuse(&rejection)),
        };
        match self.attempt() {
            Ok(stream) => self.admit(stream, reserved),
            Err(missed) => {
                if matches!(missed, Missed::End(_)) {
                    self.cancel_permit();
                }
                drop(Reserved::new(&self.filter, reserved));
                Err(missed)
            }
        }
    }

    /// Reserves the permits of the next connection: the gate's (P3), which stays with the pass until a connection is
    /// delivered, and the filter's.
    #[inline(always)]
    fn reserve(&mut self) -> Result<Reservation<F::Permit>, PassEnd> {
        if let Some(refusal) = self.ending.as_ref().and_then(Ending::refuses) {
            return Ok(Reservation::Rejected(Rejection::new(Cause::Shutdown, refusal.clone())));
        }
        // A gate that sheds is asked after the accept.
        if self.permit.is_none() && self.gate.sheds().is_none() {
            self.permit = match self.gate.try_acquire() {
                None => self.block_on_gate()?,
                permit => permit,
            };
        }
        Ok(self.filter.reserve())
    }

    /// Calls accept4 once: the one place that does, with the one table of its errors (P7, P8).
    #[inline(always)]
    pub(super) fn attempt(&mut self) -> Result<B::Stream, Missed> {
        self.shared.counters.attempts.add();
        self.pass.left -= 1;
        match self.backend.accept(self.config.with_peer.then_some(&mut self.peer)) {
            Ok(stream) => {
                self.pass.took();
                self.backoff.succeeded();
                self.futile_accepts = 0;
                Ok(stream)
            }
            Err(errno) => Err(self.attempt_failed(errno)),
        }
    }

    #[cold]
    fn attempt_failed(&mut self, errno: Errno) -> Missed {
        let class = errno.class();
        self.shared.counters.failed(errno);
        match class {
            ErrnoClass::Consumed | ErrnoClass::Interrupted => {
                self.futile_accepts += 1;
                if class == ErrnoClass::Consumed {
                    self.pass.took();
                }
                if self.futile_accepts < FUTILE_ACCEPTS_MAX {
                    return Missed::Retry;
                }
                // Far too many in a row: another attempt does not help.
                Missed::End(PassEnd::Block(BlockReason::Exhausted(errno)))
            }
            ErrnoClass::Empty if self.draining_closed_listener => {
                Missed::End(PassEnd::ListenerClosed(Some(errno)))
            }
            ErrnoClass::Empty if self.pass.taken == 0 => self.found_nothing(errno),
            ErrnoClass::Empty => Missed::End(PassEnd::Done),
            ErrnoClass::Fatal => Missed::End(PassEnd::ListenerClosed(Some(errno))),
            ErrnoClass::Resource => Missed::End(PassEnd::Block(BlockReason::Exhausted(errno))),
        }
    }

    /// The event was not for a connection: checks whether the listener is closed, which the kernel would report
    /// forever.
    fn found_nothing(&mut self, errno: Errno) -> Missed {
        match self.backend.peek() {
            Peek::ClosedPending => {
                self.drain_closed_listener();
                Missed::Retry
            }
            Peek::Closed => Missed::End(PassEnd::ListenerClosed(None)),
            // Another consumer took the connection, and the next one has arrived. If that repeats, the cause is a
            // seccomp filter that fails accepts, and the kernel would report the listener forever (P2).
            Peek::Pending if self.futile_accepts >= FUTILE_ACCEPTS_MAX => {
                Missed::End(PassEnd::Block(BlockReason::Exhausted(errno)))
            }
            Peek::Pending => {
                self.futile_accepts += 1;
                Missed::End(PassEnd::Done)
            }
            Peek::Empty => Missed::End(PassEnd::Done),
        }
    }

    /// The listener was shut down with connections pending: accepts them all before it counts as closed.
    #[cold]
    pub(super) fn drain_closed_listener(&mut self) {
        self.draining_closed_listener = true;
        self.empty_check = EmptyCheck::UntilEagain;
        self.pass.until_eagain();
    }

    /// Admits a connection, or refuses it (P5). Whatever panics here, the connection is closed first, and what was
    /// reserved for it is cancelled after that (P4).
    #[inline(always)]
    fn admit(&mut self, stream: B::Stream, reserved: F::Permit) -> Result<Parts<B, G, F>, Missed> {
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
                    return Ok((stream, filters, permit));
                }
            },
        };
        arrival.refuse(&rejection);
        drop(reserved);
        self.cancel_permit();
        self.has_refused();
        Err(Missed::Retry)
    }
}

/// An accepted connection that is not counted yet. If a filter panics, dropping this refuses the connection.
pub(super) struct Arrival<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) counters: &'a AtomicCounters,
    pub(super) stream: Option<B::Stream>,
    pub(super) peer: &'a Option<SocketAddr>,
}

impl<B: Backend> Arrival<'_, B> {
    #[inline]
    fn deliver(mut self) -> Option<B::Stream> {
        self.counters.delivered.add();
        self.stream.take()
    }

    #[cold]
    pub(super) fn refuse(mut self, rejection: &Rejection) {
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
