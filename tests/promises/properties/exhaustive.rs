//! Every script of the environment up to a bound, the fewest acts first.

use epoll_acceptor::Gate;
use epoll_acceptor::sim::{Action, Policy, Real, Setup};
use epoll_acceptor::sim::{Explored, explore};
use epoll_acceptor::socket::Errno;

use crate::properties::setups;
use crate::{say, thorough};

#[test]
fn every_promise_holds_after_one_act_anywhere() {
    // Every n-th of all setups and, thoroughly, each; n shares no factor with the number of choices.
    let step = if thorough() { 1 } else { 23 };
    let setups =
        (0..setups::count()).map(setups::nth).filter(|setup| !setups::is_crowded(setup)).step_by(step);
    explore_all("one act", setups, 1, Action::all);
}

#[test]
fn every_promise_holds_in_every_pair_of_choices() {
    explore_all("pairs of choices, one act", setups::in_pairs().into_iter(), 1, Action::all);
}

#[test]
fn every_promise_holds_after_two_acts_anywhere() {
    let setups = setups::in_pairs();
    let most = if thorough() { setups.len() } else { 12 };
    let acts = if thorough() { Action::all } else { decisive };
    explore_all("two acts", setups.into_iter().take(most), 2, acts);
}

/// On gVisor every queue looks empty, and every connection as if it had just arrived.
#[test]
fn every_promise_holds_without_tcp_info() {
    let blank = |setup: Setup| Setup { reports_length: true, fills_tcp_info: false, ..setup };
    explore_all("without TCP_INFO, one act", setups::in_pairs().into_iter().map(blank), 1, Action::all);
    let delay = setups::in_pairs().into_iter().map(|setup| Setup { policy: Policy::Delay, ..blank(setup) });
    explore_all("without TCP_INFO, with a queue delay, one act", delay, 1, Action::all);
}

/// The acts that put an acceptor to sleep and wake it.
fn decisive(setup: &Setup) -> Vec<Action> {
    let mut acts = vec![
        Action::Free,
        Action::Exhaust,
        Action::Relieve,
        Action::Tick,
        Action::Connect(0),
        Action::Pause(0),
    ];
    acts.extend([Action::Resume(0), Action::Fail(Errno::new(libc::ENOBUFS)), Action::Shut(0)]);
    if setup.acceptors > 1 {
        acts.push(Action::Turn(1));
    }
    acts
}

pub(crate) fn explore_all(
    what: &str,
    setups: impl Iterator<Item = Setup>,
    acts_max: u32,
    acts: fn(&Setup) -> Vec<Action>,
) {
    let mut total = Explored::default();
    let mut explored = 0;
    for setup in setups {
        match explore::<Gate>(&setup, &Real, &acts(&setup), acts_max) {
            Ok(more) => total.join(more),
            Err((script, violation)) => panic!("{violation}\nin {setup:?}\nafter\n{script}"),
        }
        explored += 1;
    }
    say(&format!(
        "exhaustive, {what}: {explored} setups, {} scripts, {} points, {} connections delivered",
        total.scripts, total.points, total.delivered
    ));
}
