//! The promises with policies besides the gate: rates, one that looks at who came, refusals at a rate of their own, and the
//! reserve descriptor.

use std::sync::Arc;

use epoll_acceptor::admission::Bell;
use epoll_acceptor::sim::{Act, Case, Explored, Extra, GateMode, Limited, Real, Script, explore, run};
use epoll_acceptor::{Admission, Both, Gate, Line, Permit, Reserve, Trigger, Until, WhenFull};

use crate::exhaustive::explore_all;
use crate::{cases, say, thorough};

#[test]
fn every_promise_holds_for_every_policy_after_one_act_anywhere() {
    explore_all("policies, one act", varied(if thorough() { 1 } else { 3 }), 1, Act::all);
}

#[test]
fn every_promise_holds_for_every_policy_after_two_acts() {
    explore_all("policies, two acts", varied(if thorough() { 3 } else { 41 }), 2, decisive);
}

/// Every case of the set in which all choices meet, with every policy; and of these every n-th.
fn varied(step: usize) -> impl Iterator<Item = Case> {
    let cases = cases::in_pairs().into_iter();
    cases.flat_map(|case| (0..cases::EXTRAS_COUNT).map(move |n| cases::with_extra(&case, n))).step_by(step)
}

fn decisive(case: &Case) -> Vec<Act> {
    let mut acts = vec![Act::Free, Act::Exhaust, Act::Relieve, Act::Tick, Act::Connect(0), Act::Reset(0)];
    acts.extend([Act::Pause(0), Act::Resume(0), Act::Stop(0), Act::Shut(0)]);
    if case.acceptors > 1 {
        acts.extend([Act::Turn(1), Act::Drop(1)]);
    }
    acts
}

/// Five clients by a rate of one every 5 ms: each of the alarms brings one in.
#[test]
fn who_is_throttled_wakes_once_for_each_connection() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let case = Case { trigger, extra: Extra::Rate(1), queued: 5, ..Case::plain() };
        let report =
            run::<Gate>(&case, &Script::new(), &Real).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(report.delivered, 5);
        assert!(report.wakes <= 6, "{} wake-ups", report.wakes);
    }
}

/// A place that is handed to one that may not come in yet is passed on.
#[test]
fn a_place_is_not_held_while_the_rate_is_waited_for() {
    let case =
        Case { extra: Extra::Rate(1), gate: GateMode::Pause(1), acceptors: 2, queued: 2, ..Case::plain() };
    let script = Script::new().at(40, Act::Free).at(90, Act::Tick).at(120, Act::Free);
    let report = run::<Gate>(&case, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.delivered, 4);
}

/// Two gates that everybody has to pass, one with a place more: whoever has a place of one and none of the other lets it
/// go. Nobody sleeps on it, and no two pass it to and fro.
#[derive(Clone)]
struct TwoGates(Both<Gate, Gate>);

impl Admission for TwoGates {
    type Permit = (Permit, Permit);

    fn reserve(&self) -> Reserve<Self::Permit> {
        self.0.reserve()
    }

    fn never_waits(&self) -> bool {
        self.0.never_waits()
    }

    fn cancel(&self, permit: Self::Permit) {
        self.0.cancel(permit);
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        self.0.stand(bell, until)
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        self.0.leave(bell)
    }

    fn fetch(&self, bell: &Arc<Bell>) -> Option<Reserve<Self::Permit>> {
        self.0.fetch(bell)
    }
}

impl Limited for TwoGates {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        let first = Gate::new(limit).when_full(when_full.clone());
        Self(first.and(Gate::new(limit.saturating_add(1)).when_full(when_full)))
    }

    fn change_limit(&self, limit: u32) {
        // In this order there are moments at which the second is the narrower one.
        self.0.first().set_limit(limit.saturating_add(1));
        self.0.second().set_limit(limit);
    }
}

#[test]
fn every_promise_but_the_line_holds_behind_two_gates() {
    let mut total = Explored::default();
    for case in cases::in_pairs() {
        match explore::<TwoGates>(&case, &Real, &Act::all(&case), 1) {
            Ok(more) => total.join(more),
            Err((_, violation)) if violation.promise == "P11" && violation.what.contains("in line") => {}
            Err((script, violation)) => panic!("{violation}\nin {case:?}\nafter\n{script}"),
        }
    }
    say(&format!("two gates, one act: {} scripts, {} points", total.scripts, total.points));
}
