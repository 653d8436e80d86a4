//! Filters that panic: whatever operation they do so in, no connection is stranded and no permit is lost.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use epoll_acceptor::filter::{Clock, ConnectionInfo, Rejection, Reservation};
use epoll_acceptor::sim::{
    Action, BuiltIn, BuiltInPermit, InjectedPanic, Policy, PolicyFilter, Real, Script, Setup, run_with,
};
use epoll_acceptor::{Filter, Gate};

use crate::properties::setups;
use crate::say;

thread_local! {
    /// How many moments are left before the one that panics.
    static FUSE: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// A filter of the crate that panics once: before an operation, or after it.
#[derive(Clone)]
struct Fragile(BuiltIn);

impl Fragile {
    fn around<T>(operation: impl FnOnce() -> T) -> T {
        Self::burn();
        let answer = operation();
        Self::burn();
        answer
    }

    fn burn() {
        let left = FUSE.get();
        FUSE.set(left.wrapping_sub(1));
        if left == 0 {
            resume_unwind(Box::new(InjectedPanic));
        }
    }
}

impl PolicyFilter for Fragile {
    fn of(policy: Policy, clock: &Arc<dyn Clock>) -> Option<Self> {
        BuiltIn::of(policy, clock).map(Self)
    }
}

impl Filter for Fragile {
    type Permit = BuiltInPermit;

    fn reserve(&self) -> Reservation<BuiltInPermit> {
        Self::around(|| self.0.reserve())
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut BuiltInPermit) -> Result<(), Rejection> {
        Self::around(|| self.0.admit(connection, permit))
    }

    fn cancel(&self, permit: BuiltInPermit) {
        Self::around(|| self.0.cancel(permit));
    }

    fn needs_peer_addr(&self) -> bool {
        self.0.needs_peer_addr()
    }
}

/// Each moment of each run has its panic, until a run has none left.
#[test]
fn filter_may_panic_in_any_operation() {
    let (mut runs, mut panics) = (0_u32, 0_u32);
    for setup in setups::in_pairs() {
        // A filter that panics refuses for `Cause::Filter`, which this policy allows.
        let setup = Setup { policy: Policy::Choosy, ..setup };
        for script in scripts() {
            for fuse in 0.. {
                FUSE.set(fuse);
                let outcome =
                    catch_unwind(AssertUnwindSafe(|| run_with::<Gate, Fragile>(&setup, &script, &Real)));
                let left = FUSE.replace(u32::MAX);
                runs += 1;
                match outcome {
                    Ok(Ok(_)) => {}
                    Ok(Err(violation)) => {
                        panic!("{violation}\nin {setup:?}\nwith a panic at moment {fuse} and\n{script}")
                    }
                    Err(_) => panic!("a panic left the run\nin {setup:?}\nat moment {fuse} and\n{script}"),
                }
                if left <= fuse {
                    break;
                }
                panics += 1;
            }
        }
    }
    say(&format!("panicking filters: {runs} runs, {panics} with a panic"));
}

fn scripts() -> Vec<Script> {
    let mut scripts = vec![Script::new()];
    for act in [Action::Free, Action::Exhaust, Action::Pause(0), Action::Connect(0), Action::Steal(0)] {
        scripts.extend([0, 12].map(|point| Script::new().at(point, act).after(9, Action::Connect(0))));
    }
    scripts
}
