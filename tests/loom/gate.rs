//! The crate's own gate, notifier and acceptor: no interleaving breaks a promise.

use std::time::Duration;

use epoll_acceptor::filter::{Clock, Reservation};
use epoll_acceptor::sim::{Notifier, Semaphore as _};
use epoll_acceptor::{Filter, Gate, RateLimit, State, Trigger};
use loom::sync::Arc;
use loom::thread;

use crate::commands;
use crate::model::{explore, explore_wide};
use crate::owner::Owner;
use crate::scenarios::{self as scene, join};

#[test]
fn release_wakes_a_blocking_acceptor() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        explore("release against block", move || scene::release_against_block(trigger, &Gate::new(1)));
    }
}

#[test]
fn two_releases_wake_a_blocking_acceptor() {
    explore_wide("two releases", || scene::two_releases_against_block(&Gate::new(2)));
}

#[test]
fn two_acceptors_share_one_permit() {
    explore_wide("two acceptors, one permit", || scene::two_acceptors_on_one_gate(&Gate::new(1)));
}

#[test]
fn stopped_acceptor_keeps_no_permit() {
    explore("the first waiter is stopped", || scene::first_waiter_is_stopped(&Gate::new(1)));
}

#[test]
fn raised_limit_wakes() {
    explore("limit raised", || scene::raised_limit_against_block(&Gate::new(0)));
}

#[test]
fn lowered_limit_strands_no_connection() {
    explore_wide("limit lowered", || scene::lowered_limit_against_releases(&Gate::new(2)));
}

#[test]
fn cancelled_permit_wakes() {
    explore("cancel", || scene::cancel_against_block(&Gate::new(1)));
}

#[test]
fn limit_is_never_exceeded() {
    explore("three threads acquire", || scene::three_threads_acquire(&Gate::new(1)));
}

#[test]
fn fast_path_loses_no_permit() {
    explore("acquire against block", || scene::acquire_against_block(&Gate::new(2)));
}

#[test]
fn fast_release_wakes_a_new_waiter() {
    explore("release against enqueue", || scene::release_against_enqueue(&Gate::new(1)));
}

#[test]
fn new_limit_loses_no_release() {
    explore_wide("limit raised, release, enqueue", || {
        scene::limit_against_release_and_enqueue(&Gate::new(1), 1, 2);
    });
    explore_wide("limit lowered, releases, enqueue", || {
        scene::limit_against_release_and_enqueue(&Gate::new(2), 2, 1);
    });
}

#[test]
fn dropped_acceptor_leaves_the_wait_queue() {
    explore("drop against release", || scene::drop_against_release(&Gate::new(1)));
}

#[test]
fn pause_loses_no_release() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        explore_wide("pause against release", move || scene::pause_against_release(trigger, &Gate::new(1)));
    }
}

#[test]
fn pause_guards_lose_no_release() {
    explore_wide("two guards against release", || scene::guards_against_release(&Gate::new(1)));
}

#[test]
fn connection_may_end_on_any_thread() {
    explore("connections end elsewhere", || scene::connections_end_elsewhere(&Gate::new(1)));
}

#[test]
fn stop_beats_resume() {
    explore("stop against resume: notifier", commands::stop_against_resume::<Notifier>);
    explore_wide("stop against resume: acceptor", || {
        let mut owner = Owner::new(Trigger::Level, None::<Gate>, 1);
        let (control, guard) = (owner.control(), owner.control().pause());
        let stop = thread::spawn(move || control.stop());
        let resume = thread::spawn(move || drop(guard));
        while owner.state() != State::Stopped {
            owner.wait();
            drop(owner.pass());
        }
        let served = owner.served;
        join(stop);
        join(resume);
        drop(owner.pass());
        assert_eq!((owner.state(), owner.served), (State::Stopped, served), "P9");
        assert!(!owner.is_armed(), "P9: a stopped acceptor listens again");
    });
}

#[test]
fn last_of_overlapping_pauses_resumes() {
    explore_wide("overlapping pauses: notifier", commands::overlapping_pauses::<Notifier>);
    explore("pause and resume within a pass: acceptor", || {
        let mut owner = Owner::new(Trigger::Edge, None::<Gate>, 2);
        let control = owner.control();
        let other = thread::spawn(move || drop(control.pause()));
        owner.serve(2);
        join(other);
    });
}

#[test]
fn wait_idle_returns_after_the_last_release() {
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
fn wait_idle_returns_to_two_threads() {
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

/// A clock that stands still.
#[derive(Clone, Copy)]
struct Stands;

impl Clock for Stands {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[test]
fn rate_grants_each_token_once() {
    explore("two tokens, one cancelled, two threads", || {
        let rate = RateLimit::builder(1).clock(Stands).burst(2).build();
        let Reservation::Granted(first) = rate.reserve() else { panic!("the bucket is full") };
        let takers = [rate.clone(), rate.clone()]
            .map(|rate| thread::spawn(move || matches!(rate.reserve(), Reservation::Granted(_))));
        rate.cancel(first);
        let taken = takers.map(|taker| usize::from(taker.join().unwrap())).iter().sum::<usize>();
        // Before the first token is back there is one, and after that two.
        assert!((1..=2).contains(&taken), "{taken} of 2");
        let left = usize::from(matches!(rate.reserve(), Reservation::Granted(_)));
        assert_eq!(taken + left, 2, "a token was lost or granted twice");
    });
}

/// A gate has two limits, and one queue decides both: no acceptor holds one and waits for the other.
#[test]
fn two_limits_block_no_acceptor() {
    explore_wide("two limits, one release", || {
        let gate = Gate::builder(1).handshakes(1).build();
        let permit = gate.try_acquire();
        let release = thread::spawn(move || drop(permit));
        Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
        join(release);
        assert_eq!((gate.in_use(), gate.handshakes_in_use()), (0, 0), "P4");
    });
}

/// The handshake stage is full, and the handshake ends while the acceptor blocks.
#[test]
fn handshake_done_wakes_a_blocking_acceptor() {
    explore("handshake_done against block", || {
        let gate = Gate::builder(2).handshakes(1).build();
        let permit = Arc::new(gate.try_acquire().expect("the gate has a permit"));
        let done = {
            let permit = Arc::clone(&permit);
            thread::spawn(move || permit.handshake_done())
        };
        Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
        join(done);
        assert_eq!((gate.in_use(), gate.handshakes_in_use()), (1, 0), "P4");
        drop(permit);
        assert_eq!((gate.in_use(), gate.handshakes_in_use()), (0, 0), "P4");
    });
}

/// Two threads end one handshake, and an acceptor releases another permit meanwhile.
#[test]
fn handshake_done_counts_once() {
    explore_wide("handshake_done twice against release", || {
        let gate = Gate::builder(3).handshakes(2).build();
        let permit = Arc::new(gate.try_acquire().expect("the gate has a permit"));
        let other = gate.try_acquire();
        let twice = [(); 2].map(|()| {
            let permit = Arc::clone(&permit);
            thread::spawn(move || permit.handshake_done())
        });
        drop(other);
        twice.into_iter().for_each(join);
        assert_eq!((gate.in_use(), gate.handshakes_in_use()), (1, 0), "P4");
    });
}

/// A gate that was full opens when it has come down to its low-water mark, or is empty.
#[test]
fn low_water_mark_strands_no_connection() {
    let gate = |limit| Gate::builder(limit).low_water(2).build();
    explore_wide("low water: two releases", move || scene::two_releases_against_block(&gate(2)));
    explore_wide("low water: limit raised", move || scene::raised_limit_against_block(&gate(0)));
    explore_wide("low water: limit lowered", move || scene::lowered_limit_against_releases(&gate(2)));
    explore("low water above the limit", move || scene::release_against_block(Trigger::Level, &gate(1)));
}

/// The permit that closed the gate is cancelled: it was never full of connections, and opens above its mark.
#[test]
fn cancelled_permit_opens_above_the_low_water_mark() {
    explore("low water: cancel against block", || {
        let gate = Gate::builder(2).low_water(2).build();
        let (held, last) = (gate.try_acquire(), gate.try_acquire().expect("the gate has two"));
        let cancel = {
            let gate = gate.clone();
            thread::spawn(move || gate.cancel(last))
        };
        Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
        join(cancel);
        assert_eq!(gate.in_use(), 1, "P4");
        drop(held);
    });
}

/// Threads that take the last permits meanwhile close the gate; when none is in use it is open.
#[test]
fn gate_with_a_low_water_mark_is_open_when_idle() {
    explore_wide("low water: two threads acquire against block", || {
        let gate = Gate::builder(2).low_water(2).build();
        let others = [(); 2].map(|()| {
            let gate = gate.clone();
            thread::spawn(move || drop(gate.try_acquire()))
        });
        Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
        others.into_iter().for_each(join);
        let all: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
        assert_eq!((all.len(), gate.in_use()), (2, 2), "P3 and P4");
    });
}

#[test]
fn reserved_permit_is_for_privileged_handles() {
    explore("reserved: three threads acquire", || {
        scene::three_threads_acquire(&Gate::builder(2).reserved(1).build());
    });
    explore_wide("reserved: releases, a privileged acquire, block", || {
        let gate = Gate::builder(2).reserved(1).build();
        let permit = gate.try_acquire();
        let release = thread::spawn(move || drop(permit));
        let admin = gate.privileged();
        let privileged = thread::spawn(move || drop(admin.try_acquire().expect("one is reserved")));
        Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
        join(release);
        join(privileged);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

/// The first release leaves a reserved permit free alone: it is for the privileged acceptor, though the other came first.
#[test]
fn reserved_permit_passes_the_first_waiter() {
    explore_wide("reserved: two acceptors, two releases", || {
        let gate = Gate::builder(2).reserved(1).build();
        let (one, two) = (gate.try_acquire(), gate.privileged().try_acquire());
        let mut public = Owner::new(Trigger::Level, gate.clone(), 1);
        let mut admin = Owner::new(Trigger::Level, gate.privileged(), 1);
        public.block();
        admin.block();
        let release = thread::spawn(move || drop(one));
        admin.serve(1);
        assert_eq!(public.served, 0, "P3: the reserved permit is not for this one");
        let last = thread::spawn(move || drop(two));
        public.serve(1);
        join(release);
        join(last);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}
