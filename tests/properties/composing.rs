//! Policies with the faults that composing them invites: each is found.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::admission::Bell;
use epoll_acceptor::sim::{Action, GateMode, Limited, Real, Script, Setup, Violation, explore};
use epoll_acceptor::{Admission, Both, Gate, Line, Permit, Reserve, Until, WhenFull};

use crate::say;

/// Two gates, put together with a fault.
trait Fault: Clone + Send + Sync + 'static {
    fn reserve(gates: &Both<Gate, Gate>) -> Reserve<(Permit, Permit)> {
        gates.reserve()
    }

    fn stand(gates: &Both<Gate, Gate>, bell: &Arc<Bell>, until: Until) -> Line {
        gates.stand(bell, until)
    }

    fn fetch(gates: &Both<Gate, Gate>, bell: &Arc<Bell>) -> Option<Reserve<(Permit, Permit)>> {
        gates.fetch(bell)
    }

    fn leave(gates: &Both<Gate, Gate>, bell: &Arc<Bell>) -> Option<(Permit, Permit)> {
        gates.leave(bell)
    }
}

#[derive(Clone)]
struct Faulty<F>(Both<Gate, Gate>, std::marker::PhantomData<F>);

impl<F: Fault> Admission for Faulty<F> {
    type Permit = (Permit, Permit);

    fn reserve(&self) -> Reserve<Self::Permit> {
        F::reserve(&self.0)
    }

    fn never_waits(&self) -> bool {
        self.0.never_waits()
    }

    fn cancel(&self, permit: Self::Permit) {
        self.0.cancel(permit);
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        F::stand(&self.0, bell, until)
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        F::leave(&self.0, bell)
    }

    fn fetch(&self, bell: &Arc<Bell>) -> Option<Reserve<Self::Permit>> {
        F::fetch(&self.0, bell)
    }
}

impl<F: Fault> Limited for Faulty<F> {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        let first = Gate::new(limit).when_full(when_full.clone());
        let second = Gate::new(limit.saturating_add(1)).when_full(when_full);
        Self(first.and(second), std::marker::PhantomData)
    }

    fn change_limit(&self, limit: u32) {
        self.0.first().set_limit(limit.saturating_add(1));
        self.0.second().set_limit(limit);
    }

    fn in_use(&self) -> Option<u32> {
        Some(self.0.first().in_use())
    }
}

/// None: what it is measured by.
#[derive(Clone)]
struct Sound;

impl Fault for Sound {}

/// Asks anew when it was handed a place of one and the other is full: two of these pass the place to and fro.
#[derive(Clone)]
struct AsksAtOnce;

impl Fault for AsksAtOnce {
    fn fetch(gates: &Both<Gate, Gate>, bell: &Arc<Bell>) -> Option<Reserve<(Permit, Permit)>> {
        gates.leave(bell).map(Reserve::Room)
    }
}

thread_local! {
    /// The places that are held on to, until the test is over.
    static HELD: RefCell<Vec<Permit>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the place of the first while the second is full.
#[derive(Clone)]
struct HoldsOn;

impl Fault for HoldsOn {
    fn reserve(gates: &Both<Gate, Gate>) -> Reserve<(Permit, Permit)> {
        let Reserve::Room(first) = gates.first().reserve() else { return Reserve::Full };
        match gates.second().reserve() {
            Reserve::Room(second) => Reserve::Room((first, second)),
            other => {
                HELD.with_borrow_mut(|held| held.push(first));
                match other {
                    Reserve::Shed(denied) => Reserve::Shed(denied),
                    _ => Reserve::Full,
                }
            }
        }
    }
}

/// Stands in the line of the first alone, though the second is what is full.
#[derive(Clone)]
struct FirstLineOnly;

impl Fault for FirstLineOnly {
    fn stand(gates: &Both<Gate, Gate>, bell: &Arc<Bell>, until: Until) -> Line {
        let _ = gates.first().stand(bell, until);
        Line::Standing
    }
}

/// Leaves one line and forgets the other, with whatever was kept there.
#[derive(Clone)]
struct LeavesOne;

impl Fault for LeavesOne {
    fn leave(gates: &Both<Gate, Gate>, bell: &Arc<Bell>) -> Option<(Permit, Permit)> {
        let first = gates.first().leave(bell)?;
        gates.first().cancel(first);
        None
    }
}

/// Counts the time that it has to wait down itself, and says "full": nobody rings for time.
#[derive(Clone)]
struct TimeIsNoPlace(Gate);

impl Admission for TimeIsNoPlace {
    type Permit = Permit;

    fn reserve(&self) -> Reserve<Permit> {
        match self.0.reserve() {
            Reserve::Room(permit) if self.0.in_use() > 1 => {
                self.0.cancel(permit);
                Reserve::Full
            }
            answer => answer,
        }
    }

    fn cancel(&self, permit: Permit) {
        self.0.cancel(permit);
    }

    fn stand(&self, _: &Arc<Bell>, _: Until) -> Line {
        Line::Standing
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<Permit> {
        None
    }
}

impl Limited for TimeIsNoPlace {
    fn with_limit(limit: u32, _: WhenFull) -> Self {
        Self(Gate::new(limit))
    }

    fn change_limit(&self, limit: u32) {
        self.0.set_limit(limit);
    }
}

/// Says that it has to be waited for, and for how long, when there is nothing to wait for.
#[derive(Clone)]
struct AlwaysLater;

impl Admission for AlwaysLater {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        Reserve::NotBefore(Duration::from_millis(5))
    }

    fn cancel(&self, (): ()) {}

    fn stand(&self, _: &Arc<Bell>, _: Until) -> Line {
        Line::Room
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}

impl Limited for AlwaysLater {
    fn with_limit(_: u32, _: WhenFull) -> Self {
        Self
    }

    fn change_limit(&self, _: u32) {}
}

fn broken<G: Limited>() -> Option<(Setup, Script, Violation)> {
    // One value only: a change of two gates is not one step, and another in between would be mixed with it.
    let acts =
        [Action::Limit(1), Action::Free, Action::Pause(0), Action::Stop(0), Action::Drop(0), Action::Tick];
    [GateMode::Pause(1), GateMode::Pause(2), GateMode::Pause(100)].into_iter().find_map(|gate| {
        [(1, 3), (2, 1), (2, 2)].into_iter().find_map(|(acceptors, queued)| {
            let case = Setup { gate, acceptors, queued, ..Setup::plain() };
            let (script, violation) = explore::<G>(&case, &Real, &acts, 2).err()?;
            Some((case, script, violation))
        })
    })
}

#[test]
fn every_fault_of_composition_is_found() {
    // The promise of the line is each gate's own: see `Admission::and`.
    let sound = broken::<Faulty<Sound>>();
    if let Some((case, script, violation)) = sound {
        panic!("{violation}\nin {case:?}\nafter\n{script}");
    }
    let found = [
        ("asks at once", broken::<Faulty<AsksAtOnce>>()),
        ("holds on", broken::<Faulty<HoldsOn>>()),
        ("first line only", broken::<Faulty<FirstLineOnly>>()),
        ("leaves one", broken::<Faulty<LeavesOne>>()),
        ("time is no place", broken::<TimeIsNoPlace>()),
        ("always later", broken::<AlwaysLater>()),
    ];
    for (fault, violation) in found {
        let (_, _, violation) = violation.unwrap_or_else(|| panic!("{fault}: not found"));
        say(&format!("{fault}: {violation}"));
    }
    HELD.take();
}
