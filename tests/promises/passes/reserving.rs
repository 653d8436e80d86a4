//! The order in which the gate and the filters are asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::filter::{ConnectionInfo, Rejection, Reservation};
use epoll_acceptor::sim::{Config, Enqueued, Notifier, Semaphore, WaitFor};
use epoll_acceptor::{Acceptor, Filter, Gate, Permit, Refusal, State, Trigger, WhenFull, filter_fn};

use crate::passes::blocking::behind;
use crate::passes::{Passes, Queue};

/// Rejects every other connection, before the accept or after it.
struct Noting {
    queue: Arc<Queue>,
    after: bool,
}

impl Noting {
    fn answer(&self, call: &'static str, decides: bool) -> Result<(), Rejection> {
        let pending = self.queue.note(call);
        if decides && pending % 2 == u32::from(!self.after) { Err(Rejection::close()) } else { Ok(()) }
    }
}

impl Filter for Noting {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        match self.answer("reserve", !self.after) {
            Ok(()) => Reservation::Granted(()),
            Err(rejection) => Reservation::Rejected(rejection),
        }
    }

    fn admit(&self, _: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        self.answer("admit", self.after)
    }

    fn cancel(&self, (): ()) {
        self.queue.note("cancel");
    }
}

/// A gate that notes its calls.
struct NotedGate(Gate, Arc<Queue>);

impl Semaphore for NotedGate {
    type Permit = Permit;

    fn sheds(&self) -> Option<&Refusal> {
        self.0.sheds()
    }

    fn try_acquire(&self) -> Option<Permit> {
        self.1.note("acquire");
        Semaphore::try_acquire(&self.0)
    }

    fn cancel(&self, permit: Permit) {
        self.1.note("give-back");
        Semaphore::cancel(&self.0, permit);
    }

    fn enqueue(&self, notifier: &Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Permit> {
        self.1.note("enqueue");
        self.0.enqueue(notifier, wait_for)
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Permit> {
        self.1.note("dequeue");
        self.0.dequeue(notifier)
    }
}

fn noted<F: Filter>(gate: &Gate, filter: impl FnOnce(&Arc<Queue>) -> F) -> Passes<NotedGate, F> {
    let queue = Arc::new(Queue::default());
    let filter = filter(&queue);
    let gate = NotedGate(gate.clone(), Arc::clone(&queue));
    Passes::on(queue, gate, filter, Trigger::Level, EmptyCheck::UntilEagain, 64)
}

#[test]
fn filters_are_asked_before_and_after_the_accept() {
    for (after, calls) in [
        (false, "reserve accept refuse reserve accept admit reserve accept refuse reserve accept cancel"),
        (
            true,
            "reserve accept admit refuse cancel reserve accept admit reserve accept admit refuse cancel \
             reserve accept cancel",
        ),
    ] {
        let queue = Arc::new(Queue::default());
        let filter = Noting { queue: Arc::clone(&queue), after };
        let mut passes = Passes::on(queue, None::<Gate>, filter, Trigger::Level, EmptyCheck::UntilEagain, 64);
        assert_eq!(passes.pass(3), calls);
    }
}

#[test]
fn waiting_gate_is_asked_before_the_filter() {
    let gate = Gate::new(9);
    let mut passes = noted(&gate, |queue| Noting { queue: Arc::clone(queue), after: true });
    assert_eq!(
        passes.pass(2),
        "acquire reserve accept admit acquire reserve accept admit refuse cancel give-back \
         acquire reserve accept give-back cancel"
    );
    assert_eq!(gate.in_use(), 0);
}

#[test]
fn shedding_gate_is_asked_after_the_accept() {
    let gate = Gate::builder(1).when_full(WhenFull::Shed(Refusal::Close)).build();
    let held = gate.try_acquire();
    let mut passes = noted(&gate, |queue| Noting { queue: Arc::clone(queue), after: true });
    assert_eq!(passes.pass(1), "reserve accept acquire refuse cancel reserve accept cancel");
    drop(held);
    passes.pass(0);
    assert_eq!(
        passes.pass(2),
        "reserve accept acquire admit reserve accept acquire admit refuse cancel \
                                give-back reserve accept cancel"
    );
}

#[test]
fn full_gate_is_enqueued_at_once() {
    let gate = Gate::new(1);
    let held = gate.try_acquire();
    let mut passes = noted(&gate, |_| ());
    assert_eq!(passes.pass(2), "acquire peek disarm enqueue");
    assert_eq!(passes.pass(0), "enqueue peek", "it keeps its turn");
    drop(held);
    assert_eq!(passes.pass(0), "enqueue arm dequeue accept acquire accept acquire accept give-back");
    assert_eq!(passes.end(), "remove");
}

/// A gate that is full until an acceptor is about to wait.
struct LateGate(NotedGate);

impl Semaphore for LateGate {
    type Permit = Permit;

    fn sheds(&self) -> Option<&Refusal> {
        None
    }

    fn try_acquire(&self) -> Option<Permit> {
        None
    }

    fn cancel(&self, permit: Permit) {
        self.0.cancel(permit);
    }

    fn enqueue(&self, _: &Arc<Notifier>, _: WaitFor) -> Enqueued<Permit> {
        self.0.try_acquire().map_or(Enqueued::Waiting, Enqueued::Acquired)
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Permit> {
        self.0.dequeue(notifier)
    }
}

#[test]
fn permit_is_given_back_if_arming_fails() {
    let (gate, queue) = (Gate::new(2), Arc::new(Queue::default()));
    queue.arm_fails.store(true, Ordering::Relaxed);
    let late = LateGate(NotedGate(gate.clone(), Arc::clone(&queue)));
    let mut passes = Passes::on(queue, late, (), Trigger::Level, EmptyCheck::UntilEagain, 64);
    // One permit for the connection, and one when it waits for a release.
    assert_eq!(passes.pass(1), "peek disarm acquire arm dequeue alarm acquire give-back give-back");
    assert_eq!((passes.acceptor.state(), gate.in_use()), (State::Exhausted, 0), "P4");
    passes.queue.arm_fails.store(false, Ordering::Relaxed);
    passes.wait(10);
    assert!(passes.pass(0).contains("accept"), "P11");
}

#[test]
fn filters_by_address_have_it_read_with_the_accept() {
    let mut passes = behind(
        None::<Gate>,
        filter_fn(|connection| {
            assert_eq!(
                (connection.peer(), connection.queue_time(), connection.credentials()),
                (None, None, None)
            );
            Ok(())
        }),
    );
    assert_eq!(passes.pass(1), "peek accept-with-peer peer queue-time credentials peek");
    let config = Config { with_peer: true, ..Config::new(Trigger::Level, 64) };
    let mut passes = Passes::with(Arc::new(Queue::default()), None::<Gate>, (), config);
    assert_eq!(passes.pass(1), "length accept-with-peer");
}

#[test]
fn panic_of_a_filter_gives_the_permit_back_at_once() {
    let gate = Gate::new(1);
    let mut passes = noted(&gate, |_| filter_fn(|_| std::panic::resume_unwind(Box::new("a filter"))));
    assert!(catch_unwind(AssertUnwindSafe(|| passes.pass(1))).is_err());
    assert_eq!(gate.in_use(), 0, "P4: although no pass has followed");
    assert_eq!(passes.queue.calls(), "acquire accept-with-peer refuse give-back");
    assert_eq!(passes.queue.wakes.load(Ordering::Relaxed), 1, "P13");
}

/// Grants every n-th reservation, and asks to retry at once in between.
struct Hesitant(Arc<AtomicU32>, u32);

impl Filter for Hesitant {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(asked < 1000, "P6: a pass without end");
        if asked % self.1 == 0 { Reservation::Granted(()) } else { Reservation::RetryAfter(Duration::ZERO) }
    }
}

#[test]
fn retry_at_once_waits_for_the_alarm() {
    for budget in [1, 3, 64] {
        let asked = Arc::default();
        let filter = Hesitant(Arc::clone(&asked), u32::MAX);
        let queue = Arc::new(Queue::default());
        let mut passes =
            Passes::on(queue, None::<Gate>, filter, Trigger::Level, EmptyCheck::UntilEagain, budget);
        assert_eq!(passes.pass(1), "peek disarm alarm");
        assert_eq!(asked.load(Ordering::Relaxed), 1, "P6, P2: budget {budget}");
        (0..100).for_each(|_| drop(passes.pass(0)));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "P2: in 100 passes");
        assert_eq!(passes.acceptor.state(), State::Throttled);
        for more in 1..=5 {
            passes.wait(1);
            assert_eq!(passes.pass(0), "arm no-alarm peek disarm alarm");
            assert_eq!(asked.load(Ordering::Relaxed), 1 + more, "P11: once each time that its alarm expires");
        }
    }
}

#[test]
fn hesitant_filter_is_asked_as_often_as_before() {
    let asked = Arc::default();
    let mut passes = behind(None::<Gate>, Hesitant(Arc::clone(&asked), 3));
    for round in 1..=50 {
        passes.pass(1);
        (0..2).for_each(|_| {
            passes.wait(1);
            passes.pass(0);
        });
        assert_eq!(passes.acceptor.state(), State::Listening, "P11: round {round}");
        assert_eq!(asked.load(Ordering::Relaxed), 3 * round);
    }
    assert_eq!(passes.acceptor.counters().delivered, 50);
}
