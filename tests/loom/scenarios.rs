//! What happens at once, over any gate. Each scenario ends, or loom reports a deadlock.

use epoll_acceptor::sim::{Enqueued, Limited, Notifier, Semaphore, WaitFor};
use epoll_acceptor::{Connection, State, Trigger};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::owner::{EventFd, EventFdWaker, Owner};

fn permit<G: Semaphore>(gate: &G) -> G::Permit {
    gate.try_acquire().expect("the gate has a permit")
}

/// Waits for a permit as an acceptor does.
fn wait_for_permit<G: Semaphore>(gate: &G) -> G::Permit {
    let eventfd = Arc::new(EventFd::default());
    let notifier = Arc::new(Notifier::new(Box::new(EventFdWaker(Arc::clone(&eventfd)))));
    loop {
        match gate.enqueue(&notifier, WaitFor::Permit) {
            Enqueued::Acquired(permit) => return permit,
            Enqueued::Waiting => eventfd.wait(),
        }
    }
}

/// No permit is in use at the end.
fn assert_idle(gate: &impl Limited) {
    assert_eq!(gate.in_use(), Some(0), "P4");
}

/// A permit is released while the acceptor blocks because there is none.
pub(crate) fn release_against_block<G: Limited>(trigger: Trigger, gate: &G) {
    let permit = permit(gate);
    let release = thread::spawn(move || drop(permit));
    Owner::new(trigger, gate.clone(), 1).serve(1);
    join(release);
    assert_idle(gate);
}

/// Two threads release two permits; the acceptor uses both. Gate: 2.
pub(crate) fn two_releases_against_block<G: Limited>(gate: &G) {
    let releases = [permit(gate), permit(gate)].map(|permit| thread::spawn(move || drop(permit)));
    Owner::new(Trigger::Level, gate.clone(), 2).serve(2);
    releases.into_iter().for_each(join);
    assert_idle(gate);
}

/// Two acceptors wait for one permit, and both can use it. Gate: 1.
pub(crate) fn two_acceptors_on_one_gate<G: Limited>(gate: &G) {
    let permit = permit(gate);
    let other = {
        let gate = gate.clone();
        thread::spawn(move || Owner::new(Trigger::Level, gate, 1).serve(1))
    };
    let release = thread::spawn(move || drop(permit));
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(release);
    join(other);
    assert_idle(gate);
}

/// Two acceptors are in the wait queue, and the first is stopped: the permit is for the second. Gate: 1.
pub(crate) fn first_waiter_is_stopped<G: Limited>(gate: &G) {
    let permit = permit(gate);
    let [mut first, mut second] = [(); 2].map(|()| Owner::new(Trigger::Level, gate.clone(), 1));
    first.block();
    second.block();
    first.control().stop();
    let first = thread::spawn(move || {
        first.wait();
        drop(first.pass());
        assert_eq!(first.state(), State::Stopped, "P9");
    });
    let release = thread::spawn(move || drop(permit));
    second.serve(1);
    join(first);
    join(release);
    assert_idle(gate);
}

/// The limit is raised while the acceptor blocks. Gate: 0.
pub(crate) fn raised_limit_against_block<G: Limited>(gate: &G) {
    let raise = {
        let gate = gate.clone();
        thread::spawn(move || gate.change_limit(1))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(raise);
    assert_idle(gate);
}

/// The limit is lowered while permits are released: the acceptor wakes when the use falls below the new limit. Gate: 2.
pub(crate) fn lowered_limit_against_releases<G: Limited>(gate: &G) {
    let permits = [permit(gate), permit(gate)];
    let release = thread::spawn(move || drop(permits));
    let lower = {
        let gate = gate.clone();
        thread::spawn(move || gate.change_limit(1))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(release);
    join(lower);
    assert_idle(gate);
}

/// A permit is cancelled, because its accept took no connection. Gate: 1.
pub(crate) fn cancel_against_block<G: Limited>(gate: &G) {
    let permit = permit(gate);
    let cancel = {
        let gate = gate.clone();
        thread::spawn(move || gate.cancel(permit))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(cancel);
    assert_idle(gate);
}

/// A permit is released while a waiter enqueues, and nothing else is called. Gate: 1.
pub(crate) fn release_against_enqueue<G: Limited>(gate: &G) {
    let permit = permit(gate);
    let release = thread::spawn(move || drop(permit));
    drop(wait_for_permit(gate));
    join(release);
    assert_idle(gate);
}

/// As above, with `in_use` permits, while the limit changes to `limit`.
pub(crate) fn limit_against_release_and_enqueue<G: Limited>(gate: &G, in_use: u32, limit: u32) {
    let permits: Vec<_> = (0..in_use).map(|_| permit(gate)).collect();
    let release = thread::spawn(move || drop(permits));
    let change = {
        let gate = gate.clone();
        thread::spawn(move || gate.change_limit(limit))
    };
    drop(wait_for_permit(gate));
    join(release);
    join(change);
    assert_idle(gate);
    let all: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!(all.len(), limit as usize, "P3: the new limit holds");
}

/// Three threads try to acquire. Gate: 1.
pub(crate) fn three_threads_acquire<G: Limited>(gate: &G) {
    let inside = Arc::new(AtomicU32::new(0));
    let enter = |gate: &G, inside: &AtomicU32| {
        if let Some(permit) = gate.try_acquire() {
            assert_eq!(
                inside.fetch_add(1, Ordering::AcqRel),
                0,
                "P3: two permits are in use, the limit is 1"
            );
            inside.fetch_sub(1, Ordering::AcqRel);
            drop(permit);
        }
    };
    let others = [(); 2].map(|()| {
        let (gate, inside) = (gate.clone(), Arc::clone(&inside));
        thread::spawn(move || enter(&gate, &inside))
    });
    enter(gate, &inside);
    others.into_iter().for_each(join);
    assert_idle(gate);
}

/// A thread acquires and releases while an acceptor blocks, is served and leaves the wait queue. Gate: 2.
pub(crate) fn acquire_against_block<G: Limited>(gate: &G) {
    let held = permit(gate);
    let other = {
        let gate = gate.clone();
        thread::spawn(move || drop(gate.try_acquire()))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(other);
    assert_eq!(gate.in_use(), Some(1), "P4");
    let last = gate.try_acquire();
    assert!(last.is_some() && gate.try_acquire().is_none(), "P3 and P4: one of two permits is in use");
    drop((held, last));
    assert_idle(gate);
}

/// An acceptor that was dropped is not woken; another is dropped while a release is about to wake it. Gate: 1.
pub(crate) fn drop_against_release<G: Limited>(gate: &G) {
    let blocked = || {
        let permit = permit(gate);
        let mut owner = Owner::new(Trigger::Level, gate.clone(), 1);
        owner.block();
        (owner, permit)
    };
    let (owner, permit) = blocked();
    let eventfd = owner.eventfd();
    drop(owner);
    drop(permit);
    assert_eq!(eventfd.writes(), 0, "a dropped acceptor stayed in the wait queue");
    let (owner, permit) = blocked();
    let release = thread::spawn(move || drop(permit));
    drop(owner);
    join(release);
    assert_idle(gate);
}

/// A pause ends while a permit is released to the acceptor that it disarmed. Gate: 1.
pub(crate) fn pause_against_release<G: Limited>(trigger: Trigger, gate: &G) {
    let permit = permit(gate);
    let mut owner = Owner::new(trigger, gate.clone(), 1);
    let control = owner.control();
    let release = thread::spawn(move || drop(permit));
    let pause = thread::spawn(move || drop(control.pause()));
    owner.serve(1);
    join(release);
    join(pause);
    assert_idle(gate);
}

/// A paused acceptor has a permit kept for it or not, as a release falls; its two guards end on two threads. Gate: 1.
pub(crate) fn guards_against_release<G: Limited>(gate: &G) {
    let permit = permit(gate);
    let mut owner = Owner::new(Trigger::Level, gate.clone(), 1);
    owner.block();
    let (control, guard) = (owner.control(), owner.control().pause());
    let release = thread::spawn(move || drop(permit));
    let other = thread::spawn(move || {
        let second = control.pause();
        drop(guard);
        drop(second);
    });
    owner.serve(1);
    join(release);
    join(other);
    assert_idle(gate);
}

/// A connection is handed to another thread and ends there, while the acceptor waits for its permit. Gate: 1.
pub(crate) fn connections_end_elsewhere<G: Limited>(gate: &G) {
    let mut owner = Owner::new(Trigger::Edge, gate.clone(), 2);
    owner.wait();
    let first: Vec<Connection<(), _>> = owner.pass();
    let worker = thread::spawn(move || drop(first));
    owner.serve(2);
    join(worker);
    assert_idle(gate);
}

pub(crate) fn join(thread: thread::JoinHandle<()>) {
    thread.join().expect("no thread panics");
}
