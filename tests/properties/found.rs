//! Scripts that once broke a promise, and what was wrong.

use epoll_acceptor::sim::{Action, GateMode, Leave, Real, Script, Setup, run};
use epoll_acceptor::{EmptyCheck, Gate, Trigger};

fn holds(case: &Setup, script: &Script) {
    if let Err(violation) = run::<Gate>(case, script, &Real) {
        panic!("{violation}\nin {case:?}\nafter\n{script}");
    }
}

/// The further pass for which `ready` rings itself was taken for one that had a reason: each of the three tried again, and
/// by that had the next one stand in line, be handed the place, and ring itself.
#[test]
fn three_without_descriptors_do_not_hand_a_place_round_in_circles() {
    let case = Setup {
        trigger: Trigger::Edge,
        proof: Some(EmptyCheck::Poll),
        gate: GateMode::Pause(0),
        acceptors: 3,
        one_listener: true,
        leave: Leave::Break(2),
        queued: 3,
        ..Setup::plain()
    };
    for point in 0..40 {
        holds(
            &case,
            &Script::new().at(point, Action::Turn(2)).at(point, Action::Limit(1)).at(point, Action::Exhaust),
        );
        holds(&case, &Script::new().at(point, Action::Limit(1)).at(point, Action::Exhaust));
    }
}

/// A pass that was forgotten while the acceptor was paused kept the place that had been handed to it.
#[test]
fn a_paused_acceptor_keeps_no_place() {
    let case = Setup {
        proof: Some(EmptyCheck::Poll),
        budget: 2,
        gate: GateMode::Pause(0),
        acceptors: 2,
        one_listener: true,
        leave: Leave::Skip,
        queued: 1,
        ..Setup::plain()
    };
    for (first, second) in (10..20).flat_map(|first| (20..40).map(move |second| (first, second))) {
        holds(&case, &Script::new().at(first, Action::Limit(1)).at(second, Action::Pause(1)));
    }
}
