//! What no single run shows of a gate: in which order it rings, and what it holds meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};

use epoll_acceptor::admission::bell::Bell;
use epoll_acceptor::admission::{Ring, Until};
use epoll_acceptor::sim::Limited;
use epoll_acceptor::{Gate, Line, Reserve, WhenFull};

use crate::hall::{Flaw, Hall, Rung, Sound, State};
use crate::hunt::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    vec![
        Mutant::of_part::<FromTheFirst>(
            &["M8"],
            "P11: rung in line",
            || rings_in_line::<Gate>().and_then(|()| rings_in_line::<Hall<Sound>>()),
            rings_in_line::<Hall<FromTheFirst>>,
        ),
        Mutant::of_part::<RingsLocked>(
            &["F13"],
            "P9: rings with no lock held",
            || rings_unlocked::<Gate>().and_then(|()| rings_unlocked::<Hall<Sound>>()),
            rings_unlocked::<Hall<RingsLocked>>,
        ),
    ]
}

/// Wakes whoever comes first in its own list, not whoever has waited longest.
struct FromTheFirst;

impl Flaw for FromTheFirst {
    fn ring(state: &mut State, given: Until) -> Rung {
        state.line.make_contiguous().sort_by_key(|waiter| waiter.who);
        Sound::ring(state, given)
    }
}

/// Rings while it holds the lock that whoever is rung needs.
struct RingsLocked;

impl Flaw for RingsLocked {
    const RINGS_LOCKED: bool = true;
}

struct Noted(u32, Arc<Mutex<Vec<u32>>>);

impl Ring for Noted {
    fn ring(&self) {
        self.1.lock().unwrap().push(self.0);
    }
}

/// Whoever has waited longest is rung first: where owners run in the order in which they were woken, nobody
/// waits for more places than there are others.
fn rings_in_line<G: Limited>() -> Result<(), String> {
    let gate = G::with_limit(1, WhenFull::Pause);
    let acceptors = [gate.clone(), gate.clone()];
    let Reserve::Room(place) = gate.reserve() else { return Err("no room at first".into()) };
    let rung = Arc::new(Mutex::new(Vec::new()));
    for (who, acceptor) in [(1, &acceptors[1]), (0, &acceptors[0])] {
        let bell = Arc::new(Bell::new(Box::new(Noted(who, Arc::clone(&rung)))));
        let (Line::Standing | Line::Room) = acceptor.stand(&bell, Until::Room);
    }
    drop(place);
    match &rung.lock().unwrap()[..] {
        [1, 0] => Ok(()),
        other => Err(format!("1 stands in line, then 0, a place comes back: rung are {other:?}")),
    }
}

/// A ring that does at once what the owner would do on its own thread.
struct Hasty<G>(Arc<OnceLock<(G, Arc<Bell>)>>);

impl<G: Limited> Ring for Hasty<G> {
    fn ring(&self) {
        if let Some((gate, bell)) = self.0.get() {
            gate.leave(bell);
        }
    }
}

fn rings_unlocked<G: Limited>() -> Result<(), String> {
    let gate = G::with_limit(1, WhenFull::Pause);
    let Reserve::Room(place) = gate.reserve() else { return Err("no room at first".into()) };
    let both = Arc::new(OnceLock::new());
    let bell = Arc::new(Bell::new(Box::new(Hasty(Arc::clone(&both)))));
    let _ = both.set((gate.clone(), Arc::clone(&bell)));
    let (Line::Standing | Line::Room) = gate.stand(&bell, Until::Room);
    catch_unwind(AssertUnwindSafe(|| drop(place)))
        .map_err(|_| "one stands in line, a place comes back: who is rung waits for who rings".into())
}
