//! What no single run shows of a gate: whether it holds its lock while it wakes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use epoll_acceptor::sim::{Enqueued, Limited, Notifier, WaitFor, Wake};
use epoll_acceptor::{Gate, WhenFull};

use crate::search::Mutant;
use crate::test_gate::{GateHooks, Reference, TestGate};

pub(crate) fn mutants() -> Vec<Mutant> {
    let mutant = Mutant::of_part::<WakesLocked>(
        &["F13"],
        "P9, wakes without a lock",
        || {
            wakes_unlocked::<Gate>()
                .and_then(|()| TestGate::with_hooks::<Reference, _>(wakes_unlocked::<TestGate>))
        },
        || TestGate::with_hooks::<WakesLocked, _>(wakes_unlocked::<TestGate>),
    );
    // One lock of the published two.
    vec![mutant.explained()]
}

/// Wakes an owner while it holds the lock that the owner needs.
struct WakesLocked;

impl GateHooks for WakesLocked {
    const WAKES_LOCKED: bool = true;
}

/// A waker that does at once what the owner would do on its own thread.
struct Hasty<G>(Arc<OnceLock<(G, Arc<Notifier>)>>);

impl<G: Limited> Wake for Hasty<G> {
    fn wake(&self) {
        if let Some((gate, notifier)) = self.0.get() {
            drop(gate.dequeue(notifier));
        }
    }
}

fn wakes_unlocked<G: Limited>() -> Result<(), String> {
    let gate = G::with_limit(1, WhenFull::Wait);
    let Some(permit) = gate.try_acquire() else { return Err("no permit at first".into()) };
    let both = Arc::new(OnceLock::new());
    let notifier = Arc::new(Notifier::new(Box::new(Hasty(Arc::clone(&both)))));
    let _ = both.set((gate.clone(), Arc::clone(&notifier)));
    let Enqueued::Waiting = gate.enqueue(&notifier, WaitFor::Permit) else {
        return Err("a second permit at limit 1".into());
    };
    catch_unwind(AssertUnwindSafe(|| drop(permit)))
        .map_err(|_| "one waiter, one release: deadlock of the gate and the owner".into())
}
