//! What happens at once, over any gate. Each scenario ends, or loom reports a deadlock.

use epoll_acceptor::sim::{Enqueued, Notifier, Semaphore, WaitFor};
use epoll_acceptor::{Connection, Gate, State, Trigger};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::owner::{EventFd, Owner, Pull};

/// A gate with a limit.
pub(crate) trait Limit: Semaphore<Permit: 'static> + Clone + 'static {
    fn set_limit(&self, limit: u32);
    fn in_use(&self) -> u32;

    /// A place that must be there.
    fn place(&self) -> Self::Permit {
        self.try_acquire().expect("room in an empty gate")
    }
}

impl Limit for Gate {
    fn set_limit(&self, limit: u32) {
        Self::set_limit(self, limit);
    }

    fn in_use(&self) -> u32 {
        Self::in_use(self)
    }
}

/// A place comes back while the acceptor falls asleep for want of it.
pub(crate) fn release_against_falling_asleep<G: Limit>(trigger: Trigger, gate: &G) {
    let permit = gate.place();
    let release = thread::spawn(move || drop(permit));
    Owner::new(trigger, gate.clone(), 1).serve(1);
    join(release);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// Two places come back from two threads; the acceptor has use for both. Gate: 2.
pub(crate) fn two_releases_against_falling_asleep<G: Limit>(gate: &G) {
    let releases = [gate.place(), gate.place()].map(|permit| thread::spawn(move || drop(permit)));
    Owner::new(Trigger::Level, gate.clone(), 2).serve(2);
    releases.into_iter().for_each(join);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// Two acceptors sleep for want of one place; each has use for it. Gate: 1.
pub(crate) fn two_acceptors_on_one_gate<G: Limit>(gate: &G) {
    let permit = gate.place();
    let other = {
        let gate = gate.clone();
        thread::spawn(move || Owner::new(Trigger::Level, gate, 1).serve(1))
    };
    let release = thread::spawn(move || drop(permit));
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(release);
    join(other);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// Two acceptors stand in line, and the one that came first is stopped: the place is for the other. Gate: 1.
pub(crate) fn the_first_in_line_is_stopped<G: Limit>(gate: &G) {
    let permit = gate.place();
    let [mut first, mut second] = [(); 2].map(|()| Owner::new(Trigger::Level, gate.clone(), 1));
    first.fall_asleep();
    second.fall_asleep();
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
    assert_eq!(gate.in_use(), 0, "P4");
}

/// The limit is raised while the acceptor falls asleep. Gate: 0.
pub(crate) fn raising_the_limit_against_falling_asleep<G: Limit>(gate: &G) {
    let raise = {
        let gate = gate.clone();
        thread::spawn(move || gate.set_limit(1))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(raise);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// The limit is lowered while places come back: the acceptor wakes when the lower one is crossed. Gate: 2.
pub(crate) fn lowering_the_limit_against_releases<G: Limit>(gate: &G) {
    let permits = [gate.place(), gate.place()];
    let release = thread::spawn(move || drop(permits));
    let lower = {
        let gate = gate.clone();
        thread::spawn(move || gate.set_limit(1))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(release);
    join(lower);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// A place is reserved and given up, because its accept took nothing. Gate: 1.
pub(crate) fn rollback_against_falling_asleep<G: Limit>(gate: &G) {
    let permit = gate.place();
    let rollback = {
        let gate = gate.clone();
        thread::spawn(move || gate.cancel(permit))
    };
    Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
    join(rollback);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// Three threads want a place. Gate: 1.
pub(crate) fn never_over_the_limit<G: Limit>(gate: &G) {
    let inside = Arc::new(AtomicU32::new(0));
    let enter = |gate: &G, inside: &AtomicU32| {
        if let Some(permit) = gate.try_acquire() {
            assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0, "P3: two are in, the limit is 1");
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
    assert_eq!(gate.in_use(), 0, "P4");
}

/// An acceptor is dropped while it is about to be woken; another one that went is not woken any more. Gate: 1.
pub(crate) fn dropping_an_acceptor_against_release<G: Limit>(gate: &G) {
    let asleep = || {
        let permit = gate.place();
        let mut owner = Owner::new(Trigger::Level, gate.clone(), 1);
        owner.fall_asleep();
        (owner, permit)
    };
    let (owner, permit) = asleep();
    let release = thread::spawn(move || drop(permit));
    drop(owner);
    join(release);
    let (owner, permit) = asleep();
    let eventfd = owner.eventfd();
    drop(owner);
    drop(permit);
    assert_eq!(eventfd.wakeups(), 0, "a notifier stayed in the line when its acceptor went");
    assert_eq!(gate.in_use(), 0, "P4");
}

/// A pause is taken back while a place comes back to the acceptor that it silenced. Gate: 1.
pub(crate) fn pause_against_release<G: Limit>(trigger: Trigger, gate: &G) {
    let permit = gate.place();
    let mut owner = Owner::new(trigger, gate.clone(), 1);
    let control = owner.control();
    let release = thread::spawn(move || drop(permit));
    let pause = thread::spawn(move || {
        drop(control.pause());
    });
    owner.serve(1);
    join(release);
    join(pause);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// A connection is handed to another thread and ends there, while the next one is wanted. Gate: 1.
pub(crate) fn connections_that_end_elsewhere<G: Limit>(gate: &G) {
    let mut owner = Owner::new(Trigger::Edge, gate.clone(), 2);
    owner.wait();
    let first: Vec<Connection<(), _>> = owner.pass();
    let worker = thread::spawn(move || drop(first));
    owner.serve(2);
    join(worker);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// Enqueues until a permit is there, and sleeps in between.
pub(crate) fn wait_for_permit<G: Limit>(gate: &G) -> G::Permit {
    let eventfd = Arc::new(EventFd::default());
    let notifier = Arc::new(Notifier::new(Box::new(Pull(Arc::clone(&eventfd)))));
    loop {
        if let Enqueued::Acquired(permit) = gate.enqueue(&notifier, WaitFor::Permit) {
            return permit;
        }
        eventfd.wait();
    }
}

/// A release on the fast path, while a waiter enqueues. Gate: 1.
pub(crate) fn fast_release_against_enqueue<G: Limit>(gate: &G) {
    let permit = gate.place();
    let release = thread::spawn(move || drop(permit));
    drop(wait_for_permit(gate));
    join(release);
    assert_eq!(gate.in_use(), 0, "P4");
}

/// As before, while the limit changes too. `before` permits are in use, and the limit is `limit` in the end.
pub(crate) fn set_limit_against_release_and_enqueue<G: Limit>(gate: &G, before: u32, limit: u32) {
    let permits: Vec<_> = (0..before).map(|_| gate.place()).collect();
    let release = thread::spawn(move || drop(permits));
    let change = {
        let gate = gate.clone();
        thread::spawn(move || gate.set_limit(limit))
    };
    drop(wait_for_permit(gate));
    join(release);
    join(change);
    assert_eq!(gate.in_use(), 0, "P4");
    let all: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!(all.len(), limit as usize, "P3: the new limit holds");
}

pub(crate) fn join(thread: thread::JoinHandle<()>) {
    thread.join().expect("no thread panics");
}
