//! Scripts that once broke a promise, and what was wrong.

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::sim::{Action, Call, GateMode, Leave, Policy, Real, Script, Setup, run};
use epoll_acceptor::{Gate, Trigger};

fn holds(setup: &Setup, script: &Script) {
    if let Err(violation) = run::<Gate>(setup, script, &Real) {
        panic!("{violation}\nin {setup:?}\nafter\n{script}");
    }
}

/// The further pass for which `ready` wakes itself was taken for one that had a reason: each of the three tried again, and
/// so the next one queued, was granted the permit, and woke itself.
#[test]
fn three_without_descriptors_do_not_pass_a_permit_around() {
    let setup = Setup {
        trigger: Trigger::Edge,
        empty_check: Some(EmptyCheck::Poll),
        gate: GateMode::Wait(0),
        acceptors: 3,
        one_listener: true,
        leave: Leave::Break(2),
        queued: 3,
        ..Setup::plain()
    };
    for point in 0..40 {
        holds(
            &setup,
            &Script::new().at(point, Action::Turn(2)).at(point, Action::Limit(1)).at(point, Action::Exhaust),
        );
        holds(&setup, &Script::new().at(point, Action::Limit(1)).at(point, Action::Exhaust));
    }
}

/// A pass that was forgotten while the acceptor was paused kept the permit that had been granted to it.
#[test]
fn paused_acceptor_keeps_no_permit() {
    let setup = Setup {
        empty_check: Some(EmptyCheck::Poll),
        budget: 2,
        gate: GateMode::Wait(0),
        acceptors: 2,
        one_listener: true,
        leave: Leave::Skip,
        queued: 1,
        ..Setup::plain()
    };
    for (first, second) in (10..20).flat_map(|first| (20..40).map(move |second| (first, second))) {
        holds(&setup, &Script::new().at(first, Action::Limit(1)).at(second, Action::Pause(1)));
    }
}

/// The alarm was set for a moment that had passed.
#[test]
fn alarm_that_is_due_when_it_is_set_expires() {
    let setup = Setup {
        budget: 1,
        gate: GateMode::Wait(1),
        acceptors: 2,
        one_listener: true,
        leave: Leave::Break(2),
        queued: 1,
        ..Setup::plain()
    };
    let acts =
        [Action::Exhaust, Action::Limit(3), Action::FailCall(Call::Arm), Action::Connect(0), Action::Stop(0)];
    let script = acts.into_iter().fold(Script::new(), |script, act| script.at(7, act));
    holds(&setup, &script.at(31, Action::Limit(0)).at(38, Action::Tick));
}

/// Each of the three looks at a listener that is shut down and drained, at a gate with fewer permits: its event is not
/// new, but it ends, because one after the other learns that the queue is empty.
#[test]
fn shut_down_unix_listener_counts_as_pending() {
    let setup = Setup {
        trigger: Trigger::Level,
        empty_check: Some(EmptyCheck::UntilEagain),
        budget: 1,
        gate: GateMode::Wait(2),
        policy: Policy::Rate(1),
        acceptors: 3,
        one_listener: true,
        leave: Leave::Skip,
        queued: 1,
        ..Setup::plain()
    };
    let script = Script::new()
        .at(36, Action::Insert(0))
        .at(62, Action::Pause(0))
        .at(70, Action::Pause(1))
        .at(86, Action::Pause(2))
        .at(194, Action::Connect(0))
        .at(217, Action::Shut(0))
        .at(226, Action::FailCall(Call::Arm))
        .at(246, Action::Steal(0))
        .at(306, Action::Resume(0));
    holds(&setup, &script);
}
