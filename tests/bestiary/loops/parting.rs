//! Loops that were told of a queue, exclusively, and leave it to nobody.

use epoll_acceptor::sim::{Action, Setup};

use crate::desk::{Desk, Logic};
use crate::hunt::{Mutant, Steps, exclusive, limit};
use crate::parting::Parting;

pub(crate) fn mutants() -> Vec<Mutant> {
    let own_gates = Setup { own_gates: true, ..limit(1, exclusive()) };
    let comes_and = |act| vec![vec![Action::Connect(0)], vec![act]];
    let two_come: Steps = vec![vec![Action::Connect(0)]; 2];
    vec![
        Mutant::of_loop::<LeavesInSilence>(&["E1"], "P1", exclusive(), comes_and(Action::Pause(0))),
        Mutant::of_loop::<FullInSilence>(&["E2"], "P11", own_gates, two_come),
        Mutant::of_loop::<StopsInSilence>(&["E3"], "P1", exclusive(), comes_and(Action::Stop(0))),
        Mutant::of_loop::<DroppedInSilence>(&["E4"], "P1", exclusive(), comes_and(Action::Drop(0))),
        Mutant::of_loop::<AnnouncesFirst>(
            &["E5"],
            "P1",
            exclusive(),
            vec![vec![Action::Drop(0)], vec![Action::Connect(0)]],
        ),
        Mutant::of_loop::<ModifiesExclusive>(&["E6"], "P2", exclusive(), comes_and(Action::Exhaust)),
        Mutant::of_loop::<AnnouncesAndStays>(&["E7"], "P2", exclusive(), comes_and(Action::Exhaust)),
    ]
}

macro_rules! partings {
    ($($(#[$doc:meta])* $name:ident: $parting:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Default)]
        struct $name;

        impl Logic for $name {
            fn built(&mut self, desk: &mut Desk) {
                desk.parting = Some(Parting::$parting);
            }
        }
    )*};
}

partings! {
    /// Takes its listener out of its epoll, and trusts the kernel to tell the others.
    LeavesInSilence: Silent,
    /// Announces when it is paused or stopped, and not when it is full.
    FullInSilence: SilentWhenFull,
    /// Announces when it falls asleep, and not when it ends.
    StopsInSilence: SilentWhenStopped,
    /// Who comes after the announcement and before it has gone is told to nobody else.
    AnnouncesFirst: AnnouncesFirst,
    /// Masks itself as a level-triggered one may.
    ModifiesExclusive: Modifies,
    /// Has the others told, and stays where it was.
    AnnouncesAndStays: Stays,
}

/// Announces in every state, and leaves its end to the destructors.
#[derive(Default)]
struct DroppedInSilence;

impl Logic for DroppedInSilence {
    fn dropped(&mut self, _: &mut Desk) {}
}
