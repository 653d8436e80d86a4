//! Wakers with a destructor: the gate drops none of them while it holds its lock, since the drop may use the gate.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use epoll_acceptor::{Gate, Permit};

/// A waker that owns a permit of the gate that it waits at, as a task can own its connection.
struct Owning {
    _permit: Option<Permit>,
}

impl Wake for Owning {
    fn wake(self: Arc<Self>) {}
}

fn owning(gate: &Gate) -> Waker {
    Waker::from(Arc::new(Owning { _permit: gate.try_acquire() }))
}

/// Polls, and drops the waker: the gate then has the only reference to it.
fn poll<F: Future>(future: Pin<&mut F>, waker: Waker) -> Poll<F::Output> {
    let polled = future.poll(&mut Context::from_waker(&waker));
    drop(waker);
    polled
}

/// Fails where `steps` does not end.
fn ends(steps: impl FnOnce() + Send + 'static) {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        steps();
        let _ = sender.send(());
    });
    ended.recv_timeout(Duration::from_secs(10)).expect("the gate waits for its own lock");
}

#[test]
fn waiting_task_is_dropped_with_its_waker() {
    ends(|| {
        let gate = Gate::new(1);
        let waker = owning(&gate);
        let mut waiting = Box::pin(gate.acquire());
        assert!(poll(waiting.as_mut(), waker).is_pending());
        drop(waiting);
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

#[test]
fn waiting_task_changes_its_waker() {
    ends(|| {
        let gate = Gate::new(1);
        let waker = owning(&gate);
        let mut waiting = Box::pin(gate.acquire());
        assert!(poll(waiting.as_mut(), waker).is_pending());
        // Drops the first waker, and with it the permit, which is granted to this task.
        assert!(poll(waiting.as_mut(), Waker::noop().clone()).is_pending());
        assert!(poll(waiting.as_mut(), Waker::noop().clone()).is_ready());
    });
}

#[test]
fn waiting_task_gets_its_permit() {
    ends(|| {
        let gate = Gate::new(2);
        let (waker, permit) = (owning(&gate), gate.try_acquire());
        let mut waiting = Box::pin(gate.acquire());
        assert!(poll(waiting.as_mut(), waker).is_pending());
        drop(permit);
        assert!(poll(waiting.as_mut(), Waker::noop().clone()).is_ready());
        assert_eq!(gate.in_use(), 0, "P4");
    });
}

#[test]
fn idle_task_changes_its_waker_and_is_dropped() {
    ends(|| {
        let gate = Gate::new(3);
        let (first, second, permit) = (owning(&gate), owning(&gate), gate.try_acquire());
        let mut idle = Box::pin(gate.idle());
        assert!(poll(idle.as_mut(), first).is_pending());
        assert!(poll(idle.as_mut(), second).is_pending());
        assert_eq!(gate.in_use(), 2, "the first waker is dropped");
        drop(idle);
        assert_eq!(gate.in_use(), 1, "and the second");
        drop(permit);
    });
}
