//! The notifier, with which any thread wakes the owner of an acceptor.
//!
//! Only the owner touches its registration. All others (a thread that drops a permit, one with a `Control`, the gate)
//! set bits here and wake the owner, which reads them when its next pass begins.
//!
//! Wakeups are not coalesced: a bit "already woken" would save a write, but an owner that loses that one event would
//! never be woken again.

#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`"))]

use std::fmt;

use super::sync::{AtomicU32, Ordering};

/// Makes the owner's wait return an event with the acceptor's token. Must not panic.
pub trait Wake: Send + Sync {
    /// Wakes the owner.
    fn wake(&self);
}

/// The requests of other threads to the owner of an acceptor, and what wakes it.
pub struct Notifier {
    /// Flags in the low bits; above them the number of active pauses.
    bits: AtomicU32,
    waker: Box<dyn Wake>,
}

/// The requests of other threads, as a pass finds them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Requests(u32);

const NOTIFIED: u32 = 1;
const SELF_WAKE: u32 = 1 << 1;
const STOP: u32 = 1 << 2;
const SHUTDOWN: u32 = 1 << 3;
const PAUSE: u32 = 1 << 4;

impl Notifier {
    /// A notifier that wakes its owner through `waker`.
    #[must_use]
    pub fn new(waker: Box<dyn Wake>) -> Self {
        Self { bits: AtomicU32::new(0), waker }
    }

    /// Wakes the owner; its next pass finds [`Requests::notified`].
    pub fn notify(&self) {
        self.set(NOTIFIED);
    }

    /// Makes the owner begin another pass, without a request.
    pub(crate) fn self_wake(&self) {
        self.set(SELF_WAKE);
    }

    /// Adds a pause: the owner accepts nothing while any is active.
    pub fn pause(&self) {
        self.bits.fetch_add(PAUSE, Ordering::AcqRel);
        self.set(NOTIFIED);
    }

    /// Ends one pause.
    pub fn resume(&self) {
        self.bits.fetch_sub(PAUSE, Ordering::AcqRel);
        self.set(NOTIFIED);
    }

    /// Asks the owner to stop for good.
    pub fn stop(&self) {
        self.set(STOP | NOTIFIED);
    }

    /// Asks the owner to end the service gracefully.
    pub(crate) fn shut_down(&self) {
        self.set(SHUTDOWN | NOTIFIED);
    }

    /// Sets the bits before the wakeup, so that the pass which the wakeup causes sees them.
    fn set(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Reads the requests and acknowledges the wakeup, at the beginning of a pass.
    #[inline]
    #[must_use = "a request that is taken and not read is lost"]
    pub fn take(&self) -> Requests {
        Requests(self.bits.fetch_and(!(NOTIFIED | SELF_WAKE), Ordering::AcqRel))
    }

    /// Reads the requests, in the middle of a pass.
    #[inline]
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests(self.bits.load(Ordering::Acquire))
    }
}

impl Requests {
    /// Returns whether there is no request.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether a thread has called [`Notifier::notify`] or given a command since the last pass began.
    #[must_use]
    pub const fn notified(self) -> bool {
        self.0 & NOTIFIED != 0
    }

    /// Returns whether the owner was woken, for any reason.
    #[must_use]
    pub const fn woken(self) -> bool {
        self.0 & (NOTIFIED | SELF_WAKE) != 0
    }

    /// Returns whether any pause is active.
    #[must_use]
    pub const fn paused(self) -> bool {
        self.0 >= PAUSE
    }

    /// Returns whether a stop was requested; it is never taken back.
    #[must_use]
    pub const fn stop(self) -> bool {
        self.0 & STOP != 0
    }

    /// Returns whether a graceful shutdown was requested; it is never taken back.
    #[must_use]
    pub const fn shutdown(self) -> bool {
        self.0 & SHUTDOWN != 0
    }

    /// Returns whether there is a command, which a pass obeys before it takes another connection.
    #[inline]
    #[must_use]
    pub const fn interrupts(self) -> bool {
        self.0 & !(NOTIFIED | SELF_WAKE) != 0
    }

    /// Returns whether the owner has no use for a permit.
    #[must_use]
    pub const fn declines_permits(self) -> bool {
        self.0 & STOP != 0 || self.paused()
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("requests", &self.requests()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("notified", &self.notified())
            .field("woken", &self.woken())
            .field("paused", &self.paused())
            .field("stop", &self.stop())
            .field("shutdown", &self.shutdown())
            .finish()
    }
}
