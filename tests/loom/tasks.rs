//! Tasks that await the gate, beside threads that release and acceptors that wait in the same queue.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc as StdArc;
use std::task::{Context, Poll, Wake, Waker};

use epoll_acceptor::{Gate, Trigger};
use loom::sync::Arc;
use loom::thread;

use crate::model::{explore, explore_wide};
use crate::owner::{EventFd, Owner};
use crate::scenarios::join;

struct TaskWaker(Arc<EventFd>);

impl Wake for TaskWaker {
    fn wake(self: StdArc<Self>) {
        self.0.write();
    }
}

fn waker() -> (Waker, Arc<EventFd>) {
    let eventfd = Arc::new(EventFd::default());
    (StdArc::new(TaskWaker(Arc::clone(&eventfd))).into(), eventfd)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let (waker, eventfd) = waker();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => eventfd.wait(),
        }
    }
}

#[test]
fn release_wakes_an_awaiting_task() {
    explore("acquire().await against release", || {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let release = thread::spawn(move || drop(permit));
        drop(block_on(gate.acquire()));
        join(release);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

#[test]
fn task_and_acceptor_share_one_permit() {
    explore_wide("acquire().await beside an acceptor", || {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let task = {
            let gate = gate.clone();
            thread::spawn(move || drop(block_on(gate.acquire())))
        };
        let release = thread::spawn(move || drop(permit));
        Owner::new(Trigger::Level, gate.clone(), 1).serve(1);
        join(release);
        join(task);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

/// The task is first in the queue, and its future is dropped while a release hands it the permit: the acceptor behind it
/// gets the permit.
#[test]
fn dropped_acquire_hands_its_permit_on() {
    explore("drop of acquire() against release", || {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let mut owner = Owner::new(Trigger::Level, gate.clone(), 1);
        let (waker, _eventfd) = waker();
        let mut acquire = Box::pin(gate.acquire());
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        owner.block();
        let release = thread::spawn(move || drop(permit));
        drop(acquire);
        owner.serve(1);
        join(release);
        assert_eq!(gate.in_use(), 0, "P4");
        assert!(!gate.has_waiters(), "a dropped future stayed in the wait queue");
    });
}

/// The future is polled again with another waker while a release wakes it: the last waker counts.
#[test]
fn moved_task_is_woken_by_its_last_waker() {
    explore("second poll of acquire() against release", || {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let mut acquire = pin!(gate.acquire());
        let (first, _eventfd) = waker();
        assert!(acquire.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
        let release = thread::spawn(move || drop(permit));
        drop(block_on(acquire));
        join(release);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

#[test]
fn idle_task_is_woken_by_the_last_release() {
    explore_wide("idle().await against two releases", || {
        let gate = Gate::new(2);
        let permits = [gate.try_acquire(), gate.try_acquire()];
        let releases = permits.map(|permit| thread::spawn(move || drop(permit)));
        block_on(gate.idle());
        releases.into_iter().for_each(join);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

/// A paused acceptor has a permit kept for it, or gets it just then: it does not keep the gate from being idle.
#[test]
fn paused_waiter_does_not_delay_idle() {
    explore_wide("idle().await against release and pause", || {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let mut owner = Owner::new(Trigger::Level, gate.clone(), 1);
        owner.block();
        let guard = owner.control().pause();
        let release = thread::spawn(move || drop(permit));
        block_on(gate.idle());
        join(release);
        assert_eq!(gate.in_use(), 0, "P4");
        drop(guard);
    });
}
