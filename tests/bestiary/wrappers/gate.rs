//! What no single run shows of a gate: what it holds while it rings.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use epoll_acceptor::admission::Bell;
use epoll_acceptor::admission::{Ring, Until};
use epoll_acceptor::sim::Limited;
use epoll_acceptor::{Gate, Line, Reserve, WhenFull};

use crate::hall::{Flaw, Hall, Sound};
use crate::hunt::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    vec![Mutant::of_part::<RingsLocked>(
        &["F13"],
        "P9: rings with no lock held",
        || rings_unlocked::<Gate>().and_then(|()| rings_unlocked::<Hall<Sound>>()),
        rings_unlocked::<Hall<RingsLocked>>,
    )]
}

/// Rings while it holds the lock that whoever is rung needs.
struct RingsLocked;

impl Flaw for RingsLocked {
    const RINGS_LOCKED: bool = true;
}

/// A ring that does at once what the owner would do on its own thread.
struct Hasty<G>(Arc<OnceLock<(G, Arc<Bell>)>>);

impl<G: Limited> Ring for Hasty<G> {
    fn ring(&self) {
        if let Some((gate, bell)) = self.0.get() {
            drop(gate.leave(bell));
        }
    }
}

fn rings_unlocked<G: Limited>() -> Result<(), String> {
    let gate = G::with_limit(1, WhenFull::Pause);
    let Reserve::Room(place) = gate.reserve() else { return Err("no room at first".into()) };
    let both = Arc::new(OnceLock::new());
    let bell = Arc::new(Bell::new(Box::new(Hasty(Arc::clone(&both)))));
    let _ = both.set((gate.clone(), Arc::clone(&bell)));
    let (Line::Standing | Line::Room | Line::Turn) = gate.stand(&bell, Until::Room);
    catch_unwind(AssertUnwindSafe(|| drop(place)))
        .map_err(|_| "one stands in line, a place comes back: who is rung waits for who rings".into())
}
