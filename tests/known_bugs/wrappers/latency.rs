//! The number of wakeups for a burst that fits into the budget.

use epoll_acceptor::Gate;
use epoll_acceptor::sim::{Factory, Real, Script, Setup, run};

use crate::calls::{Permit, Stream};
use crate::hand_loop::{HandLoops, Pass};
use crate::loop_hooks::{LoopHooks, Next, Reference};
use crate::search::{Mutant, edge, level};

pub(crate) fn mutants() -> Vec<Mutant> {
    let right = || {
        for case in [edge(BURST), level(BURST)] {
            few_wakes(&case, &HandLoops(|| Box::new(Reference)))?;
            few_wakes(&case, &Real)?;
            few_wakes(&Setup { empty_check: None, ..case }, &Real)?;
        }
        Ok(())
    };
    vec![Mutant::of_part::<OnePerTurn>(&["F3", "M3"], "few wakeups per burst", right, || {
        few_wakes(&level(BURST), &HandLoops(|| Box::new(OnePerTurn)))
    })]
}

/// One accept per turn of the event loop.
#[derive(Default)]
struct OnePerTurn;

impl LoopHooks for OnePerTurn {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.deliver(stream, permit);
        pass.rearm();
        Next::Leave
    }
}

const BURST: u32 = 32;
const WAKES_MAX: u64 = 4;

fn few_wakes(case: &Setup, maker: &impl Factory) -> Result<(), String> {
    let report = run::<Gate>(case, &Script::new(), maker).map_err(|violation| violation.to_string())?;
    match report.wakes {
        0..=WAKES_MAX => Ok(()),
        wakes => Err(format!("level, {BURST} queued, budget 64: {wakes} wakeups")),
    }
}
