//! The permit of a connection.

use std::fmt;

use super::capacity::Capacity;
use super::gate::Shared;
use super::semaphore::WaitFor;
use super::sync::{Arc, AtomicBool, Ordering};

/// The permit of a connection; `F` are the permits of the filters.
///
/// Released when dropped, exactly once: a permit cannot be cloned.
///
/// ```compile_fail
/// let permit = epoll_acceptor::Gate::new(1).try_acquire().unwrap();
/// let twice = permit.clone();
/// ```
#[must_use = "a permit that is dropped is released at once"]
pub struct Permit<F = ()> {
    // Dropped in this order: the waiter that gets the gate's permit next finds the filters' permits released.
    filters: F,
    slot: Slot,
}

/// A permit's share of its gate.
struct Slot {
    /// `None` without a gate, or once it is released.
    gate: Option<Arc<Shared>>,
    /// Whether it occupies the handshake stage.
    handshaking: AtomicBool,
}

impl Permit {
    /// The permit of a connection that no gate limits.
    pub(crate) fn unlimited() -> Self {
        Self { slot: Slot { gate: None, handshaking: AtomicBool::new(false) }, filters: () }
    }

    /// A permit that its gate has counted, in the handshake stage.
    #[inline]
    pub(super) fn of(gate: Arc<Shared>) -> Self {
        Self { slot: Slot { gate: Some(gate), handshaking: AtomicBool::new(true) }, filters: () }
    }

    /// Takes the gate out of the permit without releasing the permit. Returns the gate, and whether the permit is in
    /// the handshake stage.
    pub(super) fn take(&mut self) -> Option<(Arc<Shared>, bool)> {
        Some((self.slot.gate.take()?, self.slot.handshaking.load(Ordering::Acquire)))
    }

    pub(crate) fn with_filters<F>(self, filters: F) -> Permit<F> {
        Permit { slot: self.slot, filters }
    }
}

impl<F> Permit<F> {
    /// Ends the handshake stage of this connection: the next handshake may begin, and the connection still counts
    /// against the gate's limit. Call it from any thread, any number of times. Only a gate with
    /// [`handshakes`](crate::acceptor::GateBuilder::handshakes) needs it.
    pub fn handshake_done(&self) {
        let Some(gate) = &self.slot.gate else { return };
        if self.slot.handshaking.swap(false, Ordering::AcqRel) {
            gate.change(WaitFor::Permit, Capacity::end_handshake);
        }
    }

    /// Returns the permits of the filters.
    pub const fn filters(&self) -> &F {
        &self.filters
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.release(|| self.handshaking.load(Ordering::Acquire));
        }
    }
}

impl<F> fmt::Debug for Permit<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
