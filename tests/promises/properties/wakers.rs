//! Wakers at a gate. It drops none of them while it holds its lock: a waker may have a destructor, which may use the gate.

use std::future::Future;
use std::panic::{catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use epoll_acceptor::sim::{Enqueued, Notifier, Requests, Semaphore, WaitFor};
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

/// The wakeup of an owner whose pass begins at once.
struct Prompt {
    notifier: Arc<OnceLock<Arc<Notifier>>>,
    seen: Arc<Mutex<Vec<Requests>>>,
}

impl epoll_acceptor::sim::Wake for Prompt {
    fn wake(&self) {
        let requests = self.notifier.get().expect("it is set before the first request").requests();
        self.seen.lock().expect("not poisoned").push(requests);
    }
}

#[test]
fn request_is_set_before_the_owner_is_woken() {
    let (cell, seen) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
    let waker = Prompt { notifier: Arc::clone(&cell), seen: Arc::clone(&seen) };
    let notifier = Arc::clone(cell.get_or_init(|| Arc::new(Notifier::new(Box::new(waker)))));
    let request = |request: fn(&Notifier), is_set: fn(Requests) -> bool| {
        assert!(!is_set(notifier.take()));
        request(&notifier);
        let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
        assert!(matches!(seen[..], [seen] if is_set(seen)), "P11: {seen:?}");
    };
    request(Notifier::notify, |seen| seen.notified());
    request(Notifier::pause, |seen| seen.paused() && seen.notified());
    request(Notifier::resume, |seen| !seen.paused() && seen.notified());
    request(Notifier::stop, |seen| seen.stop() && seen.notified());
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

struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("injected panic"));
    }
}

#[derive(Default)]
struct Counting(AtomicU32);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn panicking_waker_wakes_those_behind_it() {
    let gate = Gate::new(0);
    let counting = Arc::new(Counting::default());
    let mut tasks = [(); 3].map(|()| Box::pin(gate.acquire()));
    for (nth, task) in tasks.iter_mut().enumerate() {
        let waker = if nth == 0 { Waker::from(Arc::new(Panicking)) } else { Arc::clone(&counting).into() };
        assert!(poll(task.as_mut(), waker).is_pending());
    }
    assert!(catch_unwind(|| gate.set_limit(3)).is_err());
    assert_eq!(counting.0.load(Ordering::Relaxed), 2, "P13");
    assert!(tasks.iter_mut().all(|task| poll(task.as_mut(), Waker::noop().clone()).is_ready()));
}

#[test]
fn reserved_permits_are_for_privileged_tasks() {
    let gate = Gate::builder(2).reserved(1).build();
    let _permit = gate.try_acquire();
    let privileged = gate.privileged();
    let ready = |gate: &Gate| poll(Box::pin(gate.acquire()).as_mut(), Waker::noop().clone()).is_ready();
    assert_eq!((ready(&gate), ready(&privileged)), (false, true));
}

/// The owner of an acceptor, whose wakeups are counted.
struct Owner(Arc<Counting>);

impl epoll_acceptor::sim::Wake for Owner {
    fn wake(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// It frees no descriptor (P2).
#[test]
fn unused_permit_wakes_no_exhausted_acceptor() {
    let gate = Gate::new(1);
    let wakes = Arc::new(Counting::default());
    let [exhausted, paused] = [(); 2].map(|()| Arc::new(Notifier::new(Box::new(Owner(Arc::clone(&wakes))))));
    let enqueue = |notifier, wait_for| {
        assert!(matches!(gate.enqueue(notifier, wait_for), Enqueued::Waiting));
        wakes.0.store(0, Ordering::Relaxed);
    };

    let permit = gate.try_acquire();
    let mut task = Box::pin(gate.acquire());
    assert!(poll(task.as_mut(), Waker::noop().clone()).is_pending());
    drop(permit);
    enqueue(&exhausted, WaitFor::Release);
    drop(task);
    assert_eq!((gate.in_use(), wakes.0.load(Ordering::Relaxed)), (0, 0), "a task has left its permit");

    let permit = gate.try_acquire();
    enqueue(&paused, WaitFor::Permit);
    drop(permit);
    paused.pause();
    enqueue(&exhausted, WaitFor::Release);
    assert!(gate.wait_idle(Some(Duration::ZERO)));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "a paused acceptor had one");
}
