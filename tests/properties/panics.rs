//! A policy that panics: whatever operation it does so in, nobody is stranded and no place is lost.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use epoll_acceptor::admission::Bell;
use epoll_acceptor::sim::{Action, InjectedPanic, Limited, Real, Script, run};
use epoll_acceptor::{Admission, Gate, Line, Permit, Reserve, Until, WhenFull};

use crate::{cases, say};

thread_local! {
    /// How many operations are left before the one that panics.
    static FUSE: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// A gate that panics in one operation, before it or after it.
#[derive(Clone)]
struct Fragile(Gate);

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

impl Admission for Fragile {
    type Permit = Permit;

    fn reserve(&self) -> Reserve<Permit> {
        Self::around(|| self.0.reserve())
    }

    fn never_waits(&self) -> bool {
        self.0.never_waits()
    }

    fn cancel(&self, permit: Permit) {
        Self::around(|| self.0.cancel(permit));
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        Self::around(|| self.0.stand(bell, until))
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        Self::around(|| self.0.leave(bell))
    }
}

impl Limited for Fragile {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        Self(Gate::new(limit).when_full(when_full))
    }

    fn change_limit(&self, limit: u32) {
        self.0.set_limit(limit);
    }
}

#[test]
fn a_policy_may_panic_in_any_operation() {
    let mut runs = 0_u32;
    for case in cases::in_pairs() {
        for script in scripts() {
            for fuse in 0..40 {
                FUSE.set(fuse);
                // The panic may come as late as the end of the run, when everything is dropped.
                let outcome = catch_unwind(AssertUnwindSafe(|| run::<Fragile>(&case, &script, &Real)));
                if let Ok(Err(violation)) = outcome {
                    panic!("{violation}\nin {case:?}\nwith a panic at operation {fuse} and\n{script}");
                }
                runs += 1;
            }
        }
    }
    FUSE.set(u32::MAX);
    say(&format!("panicking policies: {runs} runs"));
}

fn scripts() -> Vec<Script> {
    let mut scripts = vec![Script::new()];
    for act in [Action::Free, Action::Exhaust, Action::Pause(0), Action::Connect(0), Action::Steal(0)] {
        scripts.extend([0, 6, 12, 18].map(|point| Script::new().at(point, act).after(9, Action::Connect(0))));
    }

    scripts
}
