//! The interface of a gate to an acceptor.
#![cfg_attr(
    not(feature = "sim"),
    allow(unreachable_pub, reason = "public behind `sim`, for the gates of tests")
)]

use super::notifier::Notifier;
use super::refusal::Refusal;
use super::sync::Arc;

/// A counting semaphore with a wait queue for acceptors: [`Gate`](super::gate::Gate), and in `sim` the gates that tests
/// put in its place. Not covered by semantic versioning.
pub trait Semaphore: Send + Sync {
    /// What a connection holds while it is in service.
    type Permit;

    /// Returns how a connection that finds the gate full is refused, if the gate sheds load instead of making it wait.
    fn sheds(&self) -> Option<&Refusal>;

    /// Takes a permit if one is available.
    fn try_acquire(&self) -> Option<Self::Permit>;

    /// Takes back a permit that no connection has used. It frees no descriptor, so it wakes no waiter for a release.
    fn cancel(&self, permit: Self::Permit);

    /// Queues the acceptor that `notifier` wakes, unless a permit is available or is kept for it: the check and the
    /// insertion are one step. An acceptor that is queued already keeps its turn.
    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Self::Permit>;

    /// Removes an acceptor from the wait queue. Returns a permit that was kept for it, to be used or cancelled.
    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Self::Permit>;
}

/// The event that a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// A permit.
    Permit,
    /// The release of any permit, with which a descriptor may have been freed.
    Release,
}

/// The outcome of [`Semaphore::enqueue`].
#[derive(Debug)]
#[must_use = "a permit that is dropped is released"]
pub enum Enqueued<P> {
    /// Queued: the notifier will be notified.
    Waiting,
    /// Not queued: here is the permit.
    Acquired(P),
}

/// Without a gate every connection is accepted, and no release ends a wait for descriptors.
impl<S: Semaphore> Semaphore for Option<S> {
    type Permit = Option<S::Permit>;

    #[inline]
    fn sheds(&self) -> Option<&Refusal> {
        self.as_ref().and_then(S::sheds)
    }

    #[inline]
    fn try_acquire(&self) -> Option<Self::Permit> {
        match self {
            Some(gate) => gate.try_acquire().map(Some),
            None => Some(None),
        }
    }

    #[inline]
    fn cancel(&self, permit: Self::Permit) {
        if let (Some(gate), Some(permit)) = (self, permit) {
            gate.cancel(permit);
        }
    }

    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Self::Permit> {
        match self.as_ref().map(|gate| gate.enqueue(notifier, wait_for)) {
            Some(Enqueued::Acquired(permit)) => Enqueued::Acquired(Some(permit)),
            None if wait_for == WaitFor::Permit => Enqueued::Acquired(None),
            _ => Enqueued::Waiting,
        }
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Self::Permit> {
        self.as_ref().and_then(|gate| gate.dequeue(notifier)).map(Some)
    }
}
