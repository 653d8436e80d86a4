//! The gate, one operation at a time: which waiter is woken for what, and what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::sim::{Enqueued, Notifier, Semaphore, WaitFor, Wake};
use epoll_acceptor::{Gate, Permit, Refusal, WhenFull};

/// The owner of an acceptor, whose wakeups are counted.
struct Owner {
    notifier: Arc<Notifier>,
    wakes: Arc<AtomicU32>,
}

struct Counted(Arc<AtomicU32>);

impl Wake for Counted {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Owner {
    fn new() -> Self {
        let wakes = Arc::<AtomicU32>::default();
        Self { notifier: Arc::new(Notifier::new(Box::new(Counted(Arc::clone(&wakes))))), wakes }
    }

    fn queued(gate: &Gate, wait_for: WaitFor) -> Self {
        let owner = Self::new();
        assert!(owner.enqueue(gate, wait_for).is_none());
        owner
    }

    /// Joins the wait queue, unless there is a permit for it.
    fn enqueue(&self, gate: &Gate, wait_for: WaitFor) -> Option<Permit> {
        match gate.enqueue(&self.notifier, wait_for) {
            Enqueued::Waiting => None,
            Enqueued::Acquired(permit) => Some(permit),
        }
    }

    /// Takes the permit that is kept for it.
    fn collect(&self, gate: &Gate) -> Option<Permit> {
        self.enqueue(gate, WaitFor::Permit)
    }

    /// How often it was woken since this was last asked.
    fn wakes(&self) -> u32 {
        self.wakes.swap(0, Ordering::SeqCst)
    }
}

fn acquired(gate: &Gate) -> Permit {
    gate.try_acquire().expect("a permit is available")
}

#[test]
fn released_permit_is_kept_for_the_first_waiter() {
    let gate = Gate::new(1);
    let permit = acquired(&gate);
    let [first, second] = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
    let hopeful = Owner::queued(&gate, WaitFor::Release);
    drop(permit);
    assert_eq!([&first, &second, &hopeful].map(Owner::wakes), [1, 0, 1], "P11");
    assert!(gate.try_acquire().is_none(), "P11: no other can take it");
    assert_eq!(gate.in_use(), 1, "P3: it counts while it is kept");
    assert!(second.collect(&gate).is_none(), "and it keeps its turn");
    drop(first.collect(&gate).expect("its turn"));
    assert_eq!([&first, &second, &hopeful].map(Owner::wakes), [0, 1, 0], "P11: in order, and once");
    drop(second.collect(&gate));
    assert_eq!(gate.in_use(), 0, "P4");
}

#[test]
fn dequeued_permit_is_handed_on() {
    let gate = Gate::new(1);
    let permit = acquired(&gate);
    let [first, second] = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
    drop(permit);
    let permit = gate.dequeue(&first.notifier).expect("a permit was kept");
    gate.cancel(permit);
    assert_eq!([&first, &second].map(Owner::wakes), [1, 1], "P11");
    assert!(gate.dequeue(&first.notifier).is_none(), "P4: once");
    assert!(second.collect(&gate).is_some());
}

#[test]
fn paused_or_stopped_acceptor_is_granted_nothing() {
    for command in [Notifier::pause, Notifier::stop] {
        let gate = Gate::new(1);
        let permit = acquired(&gate);
        let [first, second] = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
        command(&first.notifier);
        drop(permit);
        assert_eq!(
            [&first, &second].map(Owner::wakes),
            [1, 1],
            "P11: woken by the command, and for the permit"
        );
        assert!(second.collect(&gate).is_some());
    }
}

#[test]
fn lower_limit_revokes_uncollected_permits() {
    for leaves in [false, true] {
        let gate = Gate::new(1);
        let permit = acquired(&gate);
        let [first, second] = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
        drop(permit);
        gate.set_limit(0);
        assert_eq!(gate.in_use(), 0, "P4: at once, whether it is collected or not");
        assert!(gate.wait_idle(Some(Duration::ZERO)));
        if leaves {
            assert!(gate.dequeue(&first.notifier).is_none(), "P3");
        } else {
            assert!(first.enqueue(&gate, WaitFor::Permit).is_none(), "P3");
        }
        gate.set_limit(1);
        assert_eq!(
            [&first, &second].map(Owner::wakes),
            if leaves { [1, 1] } else { [2, 0] },
            "its turn is kept"
        );
    }
}

/// The latest granted go first, and only as many as must.
#[test]
fn lower_limit_revokes_what_is_above_it() {
    let gate = Gate::new(3);
    let permits = [(); 3].map(|()| acquired(&gate));
    let owners = [(); 3].map(|()| Owner::queued(&gate, WaitFor::Permit));
    drop(permits);
    gate.set_limit(1);
    assert_eq!(gate.in_use(), 1, "P3");
    let fetched = owners.each_ref().map(|owner| owner.collect(&gate));
    assert_eq!(fetched.each_ref().map(Option::is_some), [true, false, false]);
    gate.set_limit(2);
    assert_eq!(owners.each_ref().map(Owner::wakes), [1, 2, 1], "P11: they kept their turns");
}

#[test]
fn wait_idle_ignores_paused_or_stopped_acceptors() {
    for command in [Notifier::pause, Notifier::stop] {
        let gate = Gate::new(1);
        let permit = acquired(&gate);
        let [first, second] = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
        drop(permit);
        command(&first.notifier);
        assert!(!gate.wait_idle(Some(Duration::ZERO)), "it is handed to the next waiter");
        assert_eq!(second.wakes(), 1, "P11");
        command(&second.notifier);
        assert!(gate.wait_idle(Some(Duration::ZERO)), "P4");
        assert!(gate.dequeue(&first.notifier).is_none() && gate.dequeue(&second.notifier).is_none());
        assert_eq!(gate.in_use(), 0, "P4: once");
    }
}

#[test]
fn wait_idle_is_woken_by_a_revoked_permit() {
    let gate = Gate::new(1);
    let permit = acquired(&gate);
    let owner = Owner::queued(&gate, WaitFor::Permit);
    drop(permit);
    let waiter = {
        let gate = gate.clone();
        thread::spawn(move || {
            let begun = Instant::now();
            (gate.wait_idle(Some(Duration::from_secs(20))), begun.elapsed() < Duration::from_secs(10))
        })
    };
    thread::sleep(Duration::from_millis(20));
    gate.set_limit(0);
    assert_eq!(waiter.join().unwrap(), (true, true), "P4: woken, and not by the timeout");
    assert!(gate.dequeue(&owner.notifier).is_none());
}

/// A wakeup that lowers the limit: permits of waiters that were called and not woken yet are revoked.
#[test]
fn permit_revoked_before_its_wakeup_is_regranted() {
    struct Lowers(Gate);
    impl Wake for Lowers {
        fn wake(&self) {
            self.0.set_limit(1);
        }
    }
    let gate = Gate::new(2);
    let permits = [acquired(&gate), acquired(&gate)];
    let first = Arc::new(Notifier::new(Box::new(Lowers(gate.clone()))));
    assert!(matches!(gate.enqueue(&first, WaitFor::Permit), Enqueued::Waiting));
    let second = Owner::queued(&gate, WaitFor::Permit);
    gate.set_limit(0);
    drop(permits);
    gate.set_limit(2);
    drop(gate.dequeue(&first).expect("its turn"));
    assert_eq!(second.wakes(), 1, "P11: once it is its turn");
    assert!(second.collect(&gate).is_some());
}

#[test]
fn low_water_gate_opens_at_its_mark() {
    let gate = Gate::builder(4).low_water(3).build();
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!(permits.len(), 4, "P3");
    let owners = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
    permits.truncate(2);
    assert!(gate.try_acquire().is_none(), "two are free, and it opens at three");
    assert_eq!(owners.each_ref().map(Owner::wakes), [0, 0], "P2");
    permits.truncate(1);
    assert_eq!(owners.each_ref().map(Owner::wakes), [1, 1], "P11: the waiters first");
    permits.extend(std::iter::from_fn(|| gate.try_acquire()));
    permits.extend(owners.iter().filter_map(|owner| owner.collect(&gate)));
    assert_eq!((permits.len(), gate.in_use()), (4, 4), "P3: and one for the caller");
    permits.truncate(2);
    gate.set_limit(5);
    assert!(gate.try_acquire().is_some(), "P11: three are free, of five");
}

#[test]
fn limit_below_the_mark_opens_when_empty() {
    let gate = Gate::builder(2).low_water(10).build();
    let permits = [gate.try_acquire(), gate.try_acquire()];
    assert!(permits.iter().all(Option::is_some) && gate.try_acquire().is_none(), "P3");
    let owner = Owner::queued(&gate, WaitFor::Permit);
    drop(permits);
    assert_eq!(owner.wakes(), 1, "P11");
}

#[test]
fn latch_stays_closed_until_the_mark() {
    let gate = Gate::builder(4).low_water(3).build();
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    gate.set_limit(4);
    permits.truncate(3);
    gate.set_limit(4);
    assert!(gate.try_acquire().is_none(), "one is free, and it opens at three");
    permits.truncate(1);
    assert!(gate.try_acquire().is_some(), "P11");
}

/// A connection that is refused after the accept was never in service.
#[test]
fn cancelled_permit_opens_the_latch() {
    let gate = Gate::builder(4).low_water(3).build();
    let mut permits: Vec<_> = (0..2).map(|_| acquired(&gate)).collect();
    let [unused, other] = [(); 2].map(|()| acquired(&gate));
    assert!(gate.try_acquire().is_none(), "P3");
    let owners = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
    gate.cancel(unused);
    assert_eq!(owners.each_ref().map(Owner::wakes), [1, 0], "P11: the first waiter");
    permits.push(other);
    permits.push(owners[0].collect(&gate).expect("its turn"));
    drop(permits.pop());
    assert_eq!(owners[1].wakes(), 0, "and it closes again when it is full");
    permits.truncate(1);
    assert_eq!(owners[1].wakes(), 1, "P11: the mark");
}

#[test]
fn cancel_opens_no_gate_filled_by_a_lower_limit() {
    let gate = Gate::builder(4).low_water(3).build();
    let [unused, first, second] = [(); 3].map(|()| acquired(&gate));
    gate.set_limit(2);
    gate.cancel(unused);
    drop(first);
    assert!(gate.try_acquire().is_none(), "the two that are left fill it");
    drop(second);
    assert!(gate.try_acquire().is_some(), "P11");
}

/// A privileged handle passes a closed latch.
#[test]
fn privileged_permit_leaves_the_latch_alone() {
    let gate = Gate::builder(10).reserved(1).low_water(5).build();
    let admin = gate.privileged();
    let mut permits: Vec<_> = (0..8).map(|_| acquired(&gate)).collect();
    let last = acquired(&admin);
    assert!(gate.try_acquire().is_none(), "P3: the last one is reserved");
    admin.cancel(last);
    permits.push(gate.try_acquire().expect("P11: it was never full of unprivileged ones"));
    permits.truncate(7);
    admin.cancel(acquired(&admin));
    assert!(gate.try_acquire().is_none(), "two are free, and it opens at five");
    permits.truncate(4);
    assert!(gate.try_acquire().is_some(), "P11");
}

#[test]
fn low_water_and_reserved_hold_together() {
    let gate = Gate::builder(4).reserved(1).low_water(2).build();
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!(permits.len(), 3, "P3: one is reserved");
    permits.truncate(2);
    assert!(gate.try_acquire().is_none(), "one of those that are not is free, and it opens at two");
    permits.truncate(1);
    assert!(gate.try_acquire().is_some(), "P11");
}

#[test]
fn reserved_permits_are_for_privileged_handles() {
    let gate = Gate::builder(3).reserved(1).build();
    let admin = gate.privileged();
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!((permits.len(), gate.limit()), (2, 3), "P3");
    let owner = Owner::queued(&gate, WaitFor::Permit);
    let last = admin.try_acquire().expect("kept for it");
    assert!(admin.try_acquire().is_none(), "P3");
    let privileged = Owner::new();
    assert!(privileged.enqueue(&admin, WaitFor::Permit).is_none());
    permits.truncate(1);
    assert_eq!([&owner, &privileged].map(Owner::wakes), [0, 1], "P11: one is free, which is reserved");
    drop(last);
    assert_eq!(
        [&owner, &privileged].map(Owner::wakes),
        [0, 0],
        "P3: two are taken, and the last is reserved"
    );
    drop(privileged.collect(&admin));
    assert_eq!([&owner, &privileged].map(Owner::wakes), [1, 0], "P11");
}

#[test]
fn cancel_wakes_waiters_for_a_permit_only() {
    let gate = Gate::new(1);
    let reservation = acquired(&gate);
    let [room, release] = [WaitFor::Permit, WaitFor::Release].map(|wait_for| Owner::queued(&gate, wait_for));
    gate.cancel(reservation);
    assert_eq!((room.wakes(), release.wakes()), (1, 0), "P2: it frees no descriptor");
    drop(room.collect(&gate));
    assert_eq!((room.wakes(), release.wakes()), (0, 1), "P11: the other waits still");
}

#[test]
fn no_waiter_is_woken_without_a_permit() {
    let gate = Gate::new(2);
    let (one, two) = (acquired(&gate), acquired(&gate));
    let owner = Owner::queued(&gate, WaitFor::Permit);
    gate.set_limit(1);
    assert_eq!(owner.wakes(), 0, "P2: the limit was lowered");
    assert!(gate.try_acquire().is_none(), "P3: more are in use than the limit");
    drop(one);
    assert_eq!(owner.wakes(), 0, "P2: as many are in use as the limit");
    gate.set_limit(0);
    drop(two);
    assert_eq!(owner.wakes(), 0, "P2: the gate is closed");
    gate.set_limit(1);
    assert_eq!(owner.wakes(), 1, "P11: the limit was raised");
}

#[test]
fn enqueue_acquires_what_is_available() {
    let gate = Gate::new(1);
    let owner = Owner::new();
    drop(owner.enqueue(&gate, WaitFor::Permit).expect("it does not join the queue"));
    assert!(owner.enqueue(&gate, WaitFor::Release).is_none(), "it waits for any release");
    let permit = acquired(&gate);
    assert!(owner.enqueue(&gate, WaitFor::Permit).is_none());
    assert!(gate.dequeue(&owner.notifier).is_none());
    drop(permit);
    assert_eq!(owner.wakes(), 0, "it has left");
    let none: Option<Gate> = None;
    assert!(matches!(none.enqueue(&owner.notifier, WaitFor::Permit), Enqueued::Acquired(None)));
    assert!(matches!(none.enqueue(&owner.notifier, WaitFor::Release), Enqueued::Waiting));
}

#[test]
fn enqueue_twice_keeps_one_turn() {
    let gate = Gate::new(1);
    let permit = acquired(&gate);
    let (owner, other) = (Owner::queued(&gate, WaitFor::Release), Owner::queued(&gate, WaitFor::Permit));
    assert!(owner.enqueue(&gate, WaitFor::Permit).is_none());
    gate.cancel(permit);
    assert_eq!((owner.wakes(), other.wakes()), (0, 1), "behind those that waited for a permit before");
    gate.cancel(other.collect(&gate).expect("its turn"));
    assert_eq!((owner.wakes(), other.wakes()), (1, 0), "for what it asked last");
}

#[test]
fn waiters_change_neither_limit_nor_count() {
    for limit in [0, 1, 2, 3, 64, 1 << 29, u32::MAX] {
        let gate = Gate::new(limit);
        let permits: Vec<_> = (0..2).filter_map(|_| gate.try_acquire()).collect();
        let count = u32::try_from(permits.len()).unwrap();
        let owner = Owner::queued(&gate, WaitFor::Release);
        assert_eq!(gate.wait_idle(Some(Duration::ZERO)), count == 0);
        assert_eq!((gate.limit(), gate.in_use()), (limit, count), "P3");
        gate.set_limit(limit / 2);
        assert_eq!((gate.limit(), gate.in_use()), (limit / 2, count), "P3");
        assert!(gate.dequeue(&owner.notifier).is_none());
        drop(permits);
        assert_eq!((gate.limit(), gate.in_use()), (limit / 2, 0), "P4");
    }
}

#[test]
fn wait_idle_ends_while_waiters_come_and_go() {
    for limit in [0, 1, 2] {
        let gate = Gate::new(1);
        let permit = acquired(&gate);
        gate.set_limit(limit);
        let waiter = {
            let gate = gate.clone();
            thread::spawn(move || gate.wait_idle(None))
        };
        // Nothing shows whether it waits by now: so again and again.
        for _ in 0..50 {
            let owner = Owner::queued(&gate, WaitFor::Release);
            assert!(gate.dequeue(&owner.notifier).is_none());
            thread::sleep(Duration::from_millis(1));
        }
        drop(permit);
        let begun = Instant::now();
        while !waiter.is_finished() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the gate is idle, and it waits: limit {limit}"
            );
            thread::sleep(Duration::from_millis(1));
        }
        assert!(waiter.join().unwrap());
    }
}

#[test]
fn gate_sheds_or_waits_by_its_handle() {
    let gate = Gate::new(0);
    assert!(gate.sheds().is_none() && gate.try_acquire().is_none());
    let shedding = gate.with_when_full(WhenFull::Shed(Refusal::Reset));
    assert_eq!((shedding.sheds(), gate.sheds()), (Some(&Refusal::Reset), None));
    assert!(shedding.try_acquire().is_none());
}

#[test]
fn handshake_stage_limits_before_the_gate_does() {
    let gate = Gate::builder(3).handshakes(1).build();
    let first = acquired(&gate);
    assert!(gate.try_acquire().is_none(), "P3: one handshake at a time");
    let [one, two] = [(); 2].map(|()| Owner::queued(&gate, WaitFor::Permit));
    first.handshake_done();
    first.handshake_done();
    assert_eq!([&one, &two].map(Owner::wakes), [1, 0], "P11: one queue, and done once");
    assert_eq!((gate.in_use(), gate.handshakes_in_use()), (2, 1));
    let second = one.collect(&gate).expect("its turn");
    drop(second);
    assert_eq!(two.wakes(), 1, "P4: a handshake ends with its permit");
    let third = two.collect(&gate).expect("its turn");
    third.handshake_done();
    drop((first, third));
    assert_eq!((gate.in_use(), gate.handshakes_in_use()), (0, 0), "P4");
}

#[test]
fn gate_reports_waiters() {
    let gate = Gate::new(1);
    let permit = acquired(&gate);
    let release = Owner::queued(&gate, WaitFor::Release);
    assert!(!gate.has_waiters());
    let owner = Owner::queued(&gate, WaitFor::Permit);
    assert!(gate.has_waiters());
    drop(permit);
    assert!(!gate.has_waiters(), "it has its permit");
    assert_eq!([&release, &owner].map(Owner::wakes), [1, 1]);
    drop(owner.collect(&gate));
}

#[test]
fn async_waiters_share_the_queue_with_acceptors() {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    let gate = Gate::new(1);
    let mut cx = Context::from_waker(Waker::noop());
    let permit = acquired(&gate);
    let mut first = Box::pin(gate.acquire());
    assert!(first.as_mut().poll(&mut cx).is_pending());
    let owner = Owner::queued(&gate, WaitFor::Permit);
    let mut last = Box::pin(gate.acquire());
    assert!(last.as_mut().poll(&mut cx).is_pending());
    let mut idle = Box::pin(gate.idle());
    assert!(idle.as_mut().poll(&mut cx).is_pending());
    drop(permit);
    assert!(owner.collect(&gate).is_none(), "P11: behind the first task");
    let Poll::Ready(permit) = first.as_mut().poll(&mut cx) else { panic!("its turn") };
    drop(permit);
    assert_eq!(owner.wakes(), 1, "P11");
    // The acceptor has no use for it; the last task is dropped with the permit that is kept for it.
    gate.cancel(owner.collect(&gate).expect("its turn"));
    assert!(idle.as_mut().poll(&mut cx).is_pending(), "one is kept");
    drop(last);
    assert_eq!(gate.in_use(), 0, "P4");
    assert!(idle.as_mut().poll(&mut cx).is_ready());
}
