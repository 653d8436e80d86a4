//! Several exclusive acceptors on one listener: the one that was woken may stop accepting in any way and for any reason,
//! and the others serve what is queued.

use epoll_acceptor::sim::{Action, GateMode, Leave, Real, Script, Setup, run};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Gate, Trigger};

use crate::properties::exhaustive::explore_all;
use crate::properties::setups;
use crate::{say, thorough};

#[test]
fn every_promise_holds_in_a_crowd_after_one_act_anywhere() {
    let step = if thorough() { 1 } else { 101 };
    let setups = (0..setups::count()).map(setups::nth).filter(setups::is_crowded).step_by(step);
    explore_all("a crowd, one act", setups, 1, Action::all);
}

#[test]
fn every_promise_holds_between_exclusive_acceptors_after_two_acts() {
    let setups = pairs().into_iter();
    explore_all("exclusive, two acts", setups, 2, if thorough() { Action::all } else { ends_and_cures });
}

#[test]
fn every_promise_holds_between_exclusive_acceptors_after_three_acts() {
    // Each has its own gate, for one connection: the first that is woken is full first.
    let setups = pairs().into_iter().skip(9).take(if thorough() { 3 } else { 1 });
    explore_all("exclusive, three acts", setups, 3, if thorough() { ends } else { queued_before_reported });
}

/// The ways in which the acceptor that was woken can stop accepting, and what makes it accept again.
fn ends_and_cures(setup: &Setup) -> Vec<Action> {
    let mut acts = ends(setup);
    acts.extend([
        Action::Relieve,
        Action::Tick,
        Action::Resume(0),
        Action::Pause(1),
        Action::Stop(1),
        Action::Drop(1),
    ]);
    acts.extend([Action::Connect(0), Action::Steal(0), Action::Turn(1), Action::Shut(0)]);
    acts
}

/// A connection is queued and not yet reported while the acceptor that it will wake pauses.
fn queued_before_reported(_: &Setup) -> Vec<Action> {
    vec![Action::Pause(0), Action::Insert(0), Action::Tell(0)]
}

fn ends(_: &Setup) -> Vec<Action> {
    let acts = [
        Action::Pause(0),
        Action::Stop(0),
        Action::Drop(0),
        Action::Free,
        Action::Exhaust,
        Action::Insert(0),
    ];
    acts.into_iter().chain([Action::Tell(0), Action::Fail(Errno::new(libc::ENOBUFS))]).collect()
}

/// Two or three on one listener, with one gate or one each; connections arrive before they sleep or after.
fn pairs() -> Vec<Setup> {
    let mut setups = Vec::new();
    for (acceptors, own_gates) in [(2, false), (2, true), (3, true)] {
        for gate in [GateMode::Open, GateMode::Wait(1)] {
            for (reports_length, queued, budget, leave) in [
                (true, 2, 64, Leave::AtTheEnd),
                (false, 0, 1, Leave::AtTheEnd),
                (true, 0, 64, Leave::Break(1)),
            ] {
                let trigger = Trigger::Exclusive;
                let setup = Setup {
                    trigger,
                    reports_length,
                    queued,
                    budget,
                    leave,
                    gate,
                    own_gates,
                    ..Setup::plain()
                };
                setups.push(Setup { acceptors, one_listener: true, ..setup });
            }
        }
    }
    setups
}

/// With all asleep the kernel wakes the first that was registered. It takes one connection; when it is woken for the next
/// it is full, and the other acceptor takes that one.
#[test]
fn full_acceptor_leaves_the_rest_to_the_other() {
    let setup = Setup { gate: GateMode::Wait(1), own_gates: true, ..pair() };
    let script = Script::new().at(ASLEEP, Action::Connect(0)).after(100, Action::Connect(0));
    let report = run::<Gate>(&setup, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
    // The first is woken twice, the second once; at the end the first is woken for its permit, and once more for a pass
    // that might have been forgotten.
    assert_eq!((report.delivered, report.wakes), (2, 5));
}

/// Acceptors that cannot accept do not keep each other awake: one that blocks wakes the others, and each of them blocks
/// once.
#[test]
fn exhausted_acceptors_do_not_wake_each_other_endlessly() {
    for acceptors in 2..=3 {
        let setup = Setup { acceptors, queued: 1, ..pair() };
        let mut script = Script::new().at(0, Action::Exhaust);
        for _ in 0..20 {
            script = script.after(40, Action::Tick);
        }
        let report = run::<Gate>(&setup, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
        say(&format!("{acceptors} exhausted acceptors, 20 ticks: {} wake-ups", report.wakes));
        assert_eq!(report.delivered, 1);
        // Each tick is the alarm of one at least; each alarm wakes its own acceptor, and those that are armed then.
        let most = u64::try_from(acceptors).unwrap() * (20 + 4);
        assert!(report.wakes <= most, "{} wake-ups of {acceptors} in 20 ticks", report.wakes);
    }
}

fn pair() -> Setup {
    Setup { trigger: Trigger::Exclusive, acceptors: 2, one_listener: true, ..Setup::plain() }
}

/// The first point at which all acceptors sleep.
const ASLEEP: u32 = 1;
