//! The crate's own gate, notifier and acceptor: no interleaving breaks a promise.

use std::time::Duration;

use epoll_acceptor::filter::{Clock, Reservation};
use epoll_acceptor::sim::Notifier;
use epoll_acceptor::{Filter, Gate, RateLimit, State, Trigger};
use loom::thread;

use crate::commands;
use crate::model::{explore, explore_wide};
use crate::owner::Owner;
use crate::scenarios::{self as scene, join};

#[test]
fn a_release_while_falling_asleep_wakes() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        explore("release against falling asleep", move || {
            scene::release_against_falling_asleep(trigger, &Gate::new(1));
        });
    }
}

#[test]
fn two_releases_while_falling_asleep_wake() {
    explore_wide("two releases", || scene::two_releases_against_falling_asleep(&Gate::new(2)));
}

#[test]
fn two_acceptors_share_one_place() {
    explore_wide("two acceptors, one place", || scene::two_acceptors_on_one_gate(&Gate::new(1)));
}

#[test]
fn a_stopped_acceptor_keeps_no_place_from_the_next() {
    explore("the first in line is stopped", || scene::the_first_in_line_is_stopped(&Gate::new(1)));
}

#[test]
fn a_raised_limit_wakes() {
    explore("limit raised", || scene::raising_the_limit_against_falling_asleep(&Gate::new(0)));
}

#[test]
fn a_lowered_limit_strands_nobody() {
    explore_wide("limit lowered", || scene::lowering_the_limit_against_releases(&Gate::new(2)));
}

#[test]
fn a_reservation_given_up_wakes() {
    explore("rollback", || scene::rollback_against_falling_asleep(&Gate::new(1)));
}

#[test]
fn no_interleaving_exceeds_the_limit() {
    explore("never over the limit", || scene::never_over_the_limit(&Gate::new(1)));
}

#[test]
fn a_dropped_acceptor_leaves_the_line() {
    explore("drop against release", || scene::dropping_an_acceptor_against_release(&Gate::new(1)));
}

#[test]
fn a_pause_loses_no_release() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        explore_wide("pause against release", move || scene::pause_against_release(trigger, &Gate::new(1)));
    }
}

#[test]
fn a_connection_may_end_on_any_thread() {
    explore("connections end elsewhere", || scene::connections_that_end_elsewhere(&Gate::new(1)));
}

#[test]
fn stop_beats_resume() {
    explore("stop against resume: notifier", commands::stop_against_resume::<Notifier>);
    explore_wide("stop against resume: acceptor", || {
        let mut owner = Owner::new(Trigger::Level, None::<Gate>, 1);
        let stop = owner.control();
        let pause = stop.pause();
        let stop = thread::spawn(move || stop.stop());
        let resume = thread::spawn(move || drop(pause));
        while owner.state() != State::Stopped {
            owner.wait();
            drop(owner.pass());
        }
        let served = owner.served;
        join(stop);
        join(resume);
        drop(owner.pass());
        assert_eq!((owner.state(), owner.served), (State::Stopped, served), "P9");
        assert!(!owner.is_registered(), "P9: a stopped acceptor came back");
    });
}

#[test]
fn the_last_of_overlapping_pauses_resumes() {
    explore_wide("pauses that overlap: notifier", commands::pauses_that_overlap::<Notifier>);
    explore("pause and resume in mid-pass: acceptor", || {
        let mut owner = Owner::new(Trigger::Edge, None::<Gate>, 2);
        let control = owner.control();
        let other = thread::spawn(move || {
            drop(control.pause());
        });
        owner.serve(2);
        join(other);
    });
}

#[test]
fn wait_idle_returns_when_the_last_permit_is_back() {
    explore("wait_idle", || {
        let gate = Gate::new(2);
        let permits = [gate.try_acquire(), gate.try_acquire()];
        let releases = permits.map(|permit| thread::spawn(move || drop(permit)));
        assert!(gate.wait_idle(None));
        assert_eq!(gate.in_use(), 0, "P4");
        releases.into_iter().for_each(join);
    });
}

#[test]
fn wait_idle_serves_two_who_wait() {
    explore("wait_idle twice", || {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let other = {
            let gate = gate.clone();
            thread::spawn(move || assert!(gate.wait_idle(None)))
        };
        let release = thread::spawn(move || drop(permit));
        assert!(gate.wait_idle(None));
        join(release);
        join(other);
    });
}

/// A clock that stands.
#[derive(Clone, Copy)]
struct Stands;

impl Clock for Stands {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[test]
fn a_rate_gives_each_token_once() {
    explore("one token, two takers", || {
        let rate = RateLimit::builder(1).burst(2).clock(Stands).build();
        let Reservation::Granted(first) = rate.reserve() else { panic!("it is full") };
        let takers = [rate.clone(), rate.clone()]
            .map(|rate| thread::spawn(move || matches!(rate.reserve(), Reservation::Granted(_))));
        rate.cancel(first);
        let taken = takers.map(|taker| usize::from(taker.join().unwrap())).iter().sum::<usize>();
        // Whoever came before the first was put back found one, and whoever came after it two.
        assert!((1..=2).contains(&taken), "{taken} of 2");
        let left = usize::from(matches!(rate.reserve(), Reservation::Granted(_)));
        assert_eq!(taken + left, 2, "a token was lost or given twice");
    });
}

#[test]
fn a_release_on_the_fast_path_wakes_a_waiter() {
    explore("fast release against enqueue", || scene::fast_release_against_enqueue(&Gate::new(1)));
}

#[test]
fn a_new_limit_loses_no_release() {
    explore_wide("limit raised, release, enqueue", || {
        scene::set_limit_against_release_and_enqueue(&Gate::new(1), 1, 2);
    });
    explore_wide("limit lowered, releases, enqueue", || {
        scene::set_limit_against_release_and_enqueue(&Gate::new(2), 2, 1);
    });
}
