//! How many wake-ups a burst costs that fits into the budget.

use epoll_acceptor::Gate;
use epoll_acceptor::sim::{Factory, Real, Script, Setup, run};

use crate::desk::{Hands, Logic, Next, Pass, Right};
use crate::hunt::{Mutant, edge, level};
use crate::world::{Place, Stream};

pub(crate) fn mutants() -> Vec<Mutant> {
    let right = || {
        for case in [edge(BURST), level(BURST)] {
            few_wakes(&case, &Hands(|| Box::new(Right)))?;
            few_wakes(&case, &Real)?;
            few_wakes(&Setup { proof: None, ..case }, &Real)?;
        }
        Ok(())
    };
    vec![Mutant::of_part::<OnePerTurn>(&["F3", "M3"], "few wake-ups for a burst", right, || {
        few_wakes(&level(BURST), &Hands(|| Box::new(OnePerTurn)))
    })]
}

/// One accept, and a turn for everything else.
#[derive(Default)]
struct OnePerTurn;

impl Logic for OnePerTurn {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.deliver(stream, place);
        at.tell_me_again();
        Next::Leave
    }
}

const BURST: u32 = 32;
const WAKES_MAX: u64 = 4;

fn few_wakes(case: &Setup, maker: &impl Factory) -> Result<(), String> {
    let report = run::<Gate>(case, &Script::new(), maker).map_err(|violation| violation.to_string())?;
    match report.wakes {
        0..=WAKES_MAX => Ok(()),
        wakes => Err(format!("level, {BURST} queued, budget 64: {wakes} wake-ups")),
    }
}
