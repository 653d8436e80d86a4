//! Several acceptors on one listener, exclusively: whoever is told and leaves, by whatever way and for whatever
//! reason, leaves nobody behind.

use epoll_acceptor::sim::{Action, GateMode, Leave, Real, Script, Setup, run};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Gate, Trigger};

use crate::exhaustive::explore_all;
use crate::{say, setups, thorough};

#[test]
fn every_promise_holds_in_a_crowd_after_one_act_anywhere() {
    let step = if thorough() { 1 } else { 53 };
    let setups = (0..setups::count()).map(setups::nth).filter(setups::is_crowded).step_by(step);
    explore_all("a crowd, one act", setups, 1, Action::all);
}

#[test]
fn every_promise_holds_between_exclusive_acceptors_after_two_acts() {
    let setups = pairs().into_iter();
    explore_all("exclusive, two acts", setups, 2, if thorough() { Action::all } else { parting });
}

#[test]
fn every_promise_holds_between_exclusive_acceptors_after_three_acts() {
    // A gate of its own each, and a place: the first to be told is full first.
    let setups = pairs().into_iter().skip(9).take(if thorough() { 3 } else { 1 });
    explore_all("exclusive, three acts", setups, 3, if thorough() { leaving } else { decisive });
}

/// The ways in which the one that was told can leave, and what brings it back.
fn parting(setup: &Setup) -> Vec<Action> {
    let mut acts = leaving(setup);
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

fn decisive(_: &Setup) -> Vec<Action> {
    vec![Action::Pause(0), Action::Drop(0), Action::Free, Action::Insert(0), Action::Tell(0)]
}

fn leaving(_: &Setup) -> Vec<Action> {
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

/// Two or three on one listener, with one gate or one each, told before anybody sleeps or after.
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

/// With all asleep the kernel tells the first that was registered. It takes one place; when it is told of the next
/// client it is full, and that one is the other's.
#[test]
fn who_is_full_leaves_the_rest_to_the_other() {
    let setup = Setup { gate: GateMode::Wait(1), own_gates: true, ..pair() };
    let script = Script::new().at(ASLEEP, Action::Connect(0)).after(100, Action::Connect(0));
    let report = run::<Gate>(&setup, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
    // The first is told twice, the second once; at the end the first is rung for its place, and once more for a pass
    // that might have been forgotten.
    assert_eq!((report.delivered, report.wakes), (2, 5));
}

/// Two that cannot accept do not keep each other awake: who leaves tells those who are there, and each of them
/// leaves once.
#[test]
fn two_that_are_exhausted_do_not_wake_each_other_for_ever() {
    for acceptors in 2..=3 {
        let setup = Setup { acceptors, queued: 1, ..pair() };
        let mut script = Script::new().at(0, Action::Exhaust);
        for _ in 0..20 {
            script = script.after(40, Action::Tick);
        }
        let report = run::<Gate>(&setup, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
        say(&format!("{acceptors} exhausted acceptors, 20 ticks: {} wake-ups", report.wakes));
        assert_eq!(report.delivered, 1);
        // Each tick is the alarm of one at least; each alarm wakes its own acceptor, and whoever is awake then.
        let most = u64::try_from(acceptors).unwrap() * (20 + 4);
        assert!(report.wakes <= most, "{} wake-ups of {acceptors} in 20 ticks", report.wakes);
    }
}

fn pair() -> Setup {
    Setup { trigger: Trigger::Exclusive, acceptors: 2, one_listener: true, ..Setup::plain() }
}

/// The first point at which everybody has gone to sleep.
const ASLEEP: u32 = 1;
