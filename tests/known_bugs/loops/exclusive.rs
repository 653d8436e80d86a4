//! Exclusive loops that were woken for a queue and leave it without waking another.

use epoll_acceptor::sim::{Action, Setup};

use crate::exclusive_exit::ExclusiveExit;
use crate::hand_loop::HandLoop;
use crate::loop_hooks::LoopHooks;
use crate::search::{Mutant, Steps, exclusive, limit};

pub(crate) fn mutants() -> Vec<Mutant> {
    let own_gates = Setup { own_gates: true, ..limit(1, exclusive()) };
    let connect_and = |action| vec![vec![Action::Connect(0)], vec![action]];
    let two_connect: Steps = vec![vec![Action::Connect(0)]; 2];
    vec![
        Mutant::of_loop::<DisarmsSilently>(&["E1"], "P1", exclusive(), connect_and(Action::Pause(0))),
        Mutant::of_loop::<FullSilently>(&["E2"], "P11", own_gates, two_connect),
        Mutant::of_loop::<StopsSilently>(&["E3"], "P1", exclusive(), connect_and(Action::Stop(0))),
        Mutant::of_loop::<DroppedSilently>(&["E4"], "P1", exclusive(), connect_and(Action::Drop(0))),
        Mutant::of_loop::<RewakesFirst>(
            &["E5"],
            "P1",
            exclusive(),
            vec![vec![Action::Drop(0)], vec![Action::Connect(0)]],
        ),
        Mutant::of_loop::<ModifiesExclusive>(&["E6"], "P2", exclusive(), connect_and(Action::Exhaust)),
        Mutant::of_loop::<RewakesAndStays>(&["E7"], "P2", exclusive(), connect_and(Action::Exhaust)),
    ]
}

macro_rules! exits {
    ($($(#[$doc:meta])* $name:ident: $exit:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Default)]
        struct $name;

        impl LoopHooks for $name {
            fn built(&mut self, hand_loop: &mut HandLoop) {
                hand_loop.exclusive_exit = Some(ExclusiveExit::$exit);
            }
        }
    )*};
}

exits! {
    /// Removes its listener from its epoll, and expects the kernel to wake another.
    DisarmsSilently: Silent,
    /// Wakes others when it is paused or stopped, and not when it is full.
    FullSilently: SilentWhenFull,
    /// Wakes others when it blocks, and not when it ends.
    StopsSilently: SilentWhenStopped,
    /// A connection that arrives after the rewake and before the removal wakes no other.
    RewakesFirst: RewakesFirst,
    /// Modifies its mask as a level-triggered loop may.
    ModifiesExclusive: Modifies,
    /// Wakes the others, and stays registered.
    RewakesAndStays: Stays,
}

/// Wakes others whenever it blocks, and leaves its end to the destructors.
#[derive(Default)]
struct DroppedSilently;

impl LoopHooks for DroppedSilently {
    fn dropped(&mut self, _: &mut HandLoop) {}
}
