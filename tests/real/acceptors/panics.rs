//! Filters that panic: the owner catches the panic, no connection is stranded and no permit is lost.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use epoll_acceptor::filter::{ConnectionInfo, Rejection, Reservation};
use epoll_acceptor::{Acceptor, Connection, Filter, Gate, Pending, Refusal, State, Trigger, filter_fn};

use crate::support::{
    AnySocket, Client, Endpoint, Kind, LISTENER, LONG, NoDescriptors, Owner, Read, SHORT, TRIGGERS,
    assert_all_served, done_in_child, serve,
};

/// The calls of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Reserve,
    Admit,
    Cancel,
    DropPermit,
}

/// A filter that panics once: at the n-th call of one kind, before or after its work.
#[derive(Clone)]
struct Panicking {
    call: Call,
    after: bool,
    countdown: Arc<AtomicU32>,
}

struct Ticket(Panicking);

impl Panicking {
    fn new(call: Call, nth: u32, after: bool) -> Self {
        Self { call, after, countdown: Arc::new(AtomicU32::new(nth)) }
    }

    fn at<T>(&self, call: Call, work: impl FnOnce() -> T) -> T {
        let now = call == self.call && self.countdown.fetch_sub(1, Ordering::Relaxed) == 1;
        if now && !self.after {
            resume_unwind(Box::new("injected panic"));
        }
        let done = work();
        if now && self.after {
            resume_unwind(Box::new("injected panic"));
        }
        done
    }
}

impl Filter for Panicking {
    type Permit = Ticket;

    fn reserve(&self) -> Reservation<Ticket> {
        self.at(Call::Reserve, || Reservation::Granted(Ticket(self.clone())))
    }

    fn admit(&self, _: &ConnectionInfo<'_>, _: &mut Ticket) -> Result<(), Rejection> {
        self.at(Call::Admit, || Ok(()))
    }

    fn cancel(&self, permit: Ticket) {
        self.at(Call::Cancel, || drop(permit));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.at(Call::DropPermit, || {});
    }
}

/// Runs a pass, catches its panic, and keeps its connections.
fn pass<A: Acceptor<Stream = OwnedFd>>(
    acceptor: &mut A,
    kept: &mut Vec<Connection<OwnedFd, A::Permit>>,
) -> Result<(), Box<dyn std::any::Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| {
        for connection in acceptor.ready() {
            let connection = connection.unwrap();
            serve(&connection);
            kept.push(connection);
        }
    }))
}

/// Drops connections; the drop of one may panic.
fn close<T>(kept: &mut Vec<T>) {
    let leaving = std::mem::take(kept);
    let _ = catch_unwind(AssertUnwindSafe(|| drop(leaving)));
}

fn reads(clients: &[Client], expected: Read) -> usize {
    clients.iter().filter(|client| client.read_within(LONG) == expected).count()
}

/// Serves six connections behind a gate for two with a filter that panics once; they close when no event is due.
fn run(kind: Kind, trigger: Trigger, call: Call, nth: u32, after: bool, starved: bool) {
    let gate = Gate::new(2);
    let (listener, endpoint) = kind.listen();
    let mut owner = Owner::new();
    let mut acceptor = trigger
        .on(AnySocket(listener))
        .gate(&gate)
        .filter(Panicking::new(call, nth, after))
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let clients = endpoint.connect_many(6);
    let mut none = starved.then(NoDescriptors::now);
    let mut kept = Vec::new();
    let begin = Instant::now();
    let taken = |counters: epoll_acceptor::Counters| counters.delivered + counters.refused_filter;
    while taken(acceptor.counters()) < 6 {
        assert!(
            begin.elapsed() < LONG / 6,
            "{kind:?} {trigger:?} {call:?} {nth} after {after}: {:?} {}",
            acceptor.state(),
            acceptor.counters()
        );
        let due = owner.wait(SHORT / 2);
        for _ in 0..due {
            let _ = pass(&mut acceptor, &mut kept);
        }
        if due == 0 {
            none = None;
            close(&mut kept);
        }
    }
    drop(none);
    // The connection that the filter was asked about when it panicked is closed.
    let closed = usize::from(call == Call::Admit);
    let seen: Vec<_> = clients.iter().map(|client| client.read_within(LONG)).collect();
    assert_eq!(seen.iter().filter(|read| **read == Read::Served).count(), 6 - closed, "{seen:?}");
    assert_eq!(seen.iter().filter(|read| **read == Read::End).count(), closed, "{seen:?}");
    close(&mut kept);
    assert!(gate.wait_idle(Some(Duration::ZERO)), "a permit was lost: {gate:?}");
    for _ in 0..20 {
        if owner.wait(SHORT / 2) == 0 {
            break;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| acceptor.drain(drop)));
    }
    assert_eq!(acceptor.state(), State::Listening);
    assert!(acceptor.counters().is_balanced(), "{}", acceptor.counters());
}

#[test]
fn panicking_filter_strands_nothing() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for (trigger, call, after) in cases([Call::Reserve, Call::Admit, Call::DropPermit]) {
            for nth in 1..=3 {
                run(kind, trigger, call, nth, after, false);
            }
        }
    }
}

#[test]
fn panicking_filter_without_descriptors() {
    if done_in_child("panics::panicking_filter_without_descriptors") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for (trigger, call, after) in cases([Call::Reserve, Call::Cancel, Call::DropPermit]) {
            run(kind, trigger, call, 1, after, true);
        }
    }
}

/// Without a gate.
#[test]
fn panic_in_admit_costs_one_connection() {
    for trigger in TRIGGERS {
        for nth in 1..=3 {
            let (listener, endpoint) = Kind::Tcp4.listen();
            let mut owner = Owner::new();
            let filter = Panicking::new(Call::Admit, nth, false);
            let mut acceptor =
                trigger.on(AnySocket(listener)).filter(filter).register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(3);
            let (mut kept, mut panicked) = (Vec::new(), 0);
            while kept.len() + panicked < 3 {
                let due = owner.wait(LONG);
                assert!(due > 0, "{} served", kept.len());
                // After a panic, a self-wakeup comes besides the listener's event.
                for _ in 0..due {
                    panicked += usize::from(pass(&mut acceptor, &mut kept).is_err());
                }
            }
            assert_eq!((kept.len(), panicked), (2, 1));
            assert_eq!(reads(&clients, Read::End), 1);
            assert!(acceptor.counters().is_balanced(), "{}", acceptor.counters());
        }
    }
}

/// One of two acceptors that share a gate.
struct Side<A> {
    owner: Owner,
    acceptor: A,
    endpoint: Endpoint,
    clients: Vec<Client>,
}

/// Runs the passes of both sides until `taken` connections were accepted; they close when no event is due.
fn run_sides<A: Acceptor<Stream = OwnedFd>>(sides: &mut [Side<A>], taken: u64, gate: &Gate) {
    let mut kept = Vec::new();
    let begin = Instant::now();
    loop {
        let mut due = 0;
        for side in &mut *sides {
            for _ in 0..side.owner.wait(Duration::from_millis(1)) {
                due += 1;
                let _ = pass(&mut side.acceptor, &mut kept);
            }
        }
        if due == 0 {
            assert_eq!(gate.in_use() as usize, kept.len(), "permits and open connections");
            let counters = sides.iter().map(|side| side.acceptor.counters());
            if kept.is_empty()
                && counters.map(|counters| counters.delivered + counters.refused).sum::<u64>() == taken
            {
                return;
            }
            close(&mut kept);
        }
        assert!(begin.elapsed() < LONG, "{gate:?}");
    }
}

/// Two acceptors wait at one gate for two, and a second filter refuses every third connection.
#[test]
fn panics_keep_a_shared_gate_consistent() {
    let every_third = |asked: AtomicU32| {
        filter_fn(move |_| match asked.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => Err(Rejection::close()),
            _ => Ok(()),
        })
    };
    for (trigger, call, after) in cases([Call::Reserve, Call::Admit, Call::Cancel, Call::DropPermit]) {
        for nth in 1..=4 {
            let gate = Gate::new(2);
            let panicking = Panicking::new(call, nth, after);
            let mut sides = [Kind::Tcp4, Kind::UnixStream].map(|kind| {
                let (listener, endpoint) = kind.listen();
                let owner = Owner::new();
                let acceptor = trigger
                    .on(AnySocket(listener))
                    .gate(&gate)
                    .filter(panicking.clone())
                    .filter(every_third(AtomicU32::new(0)))
                    .register(&owner.epoll, LISTENER)
                    .unwrap();
                let clients = endpoint.connect_many(6);
                Side { owner, acceptor, endpoint, clients }
            });
            run_sides(&mut sides, 12, &gate);
            // It counts down below 0.
            let left = panicking.countdown.load(Ordering::Relaxed);
            assert!(left == 0 || left > nth, "{call:?} {nth} did not panic");
            // Both go on.
            for side in &mut sides {
                side.clients.extend(side.endpoint.connect_many(6));
            }
            run_sides(&mut sides, 24, &gate);
            for side in &sides {
                assert!(side.acceptor.counters().is_balanced(), "{}", side.acceptor.counters());
                assert!(reads(&side.clients, Read::Served) >= 7, "{trigger:?} {call:?} {nth} {after}");
            }
        }
    }
}

/// Returns every trigger with every call, before and after the filter's work.
fn cases<const N: usize>(calls: [Call; N]) -> impl Iterator<Item = (Trigger, Call, bool)> {
    TRIGGERS.into_iter().flat_map(move |trigger| {
        calls.into_iter().flat_map(move |call| [false, true].map(|after| (trigger, call, after)))
    })
}

/// A panic on the thread that closes a connection hands the permit on before it unwinds.
#[test]
fn panic_in_the_drop_of_a_permit_releases_it() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let gate = Gate::new(1);
    let mut owner = Owner::new();
    let mut acceptor = Trigger::Edge
        .on(AnySocket(listener))
        .gate(&gate)
        .filter(Panicking::new(Call::DropPermit, 1, false))
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let clients = endpoint.connect_many(2);
    let mut kept = owner.take(&mut acceptor, 1);
    owner.settle(&mut acceptor);
    assert_eq!(acceptor.state(), State::Full);
    assert!(std::thread::spawn(move || drop(kept.pop())).join().is_err());
    owner.serve(&mut acceptor, 1);
    assert_all_served(&clients);
    assert_eq!(gate.in_use(), 0);
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("injected panic"));
    }
}

/// The acceptor begins to refuse what is pending, and hands its kept permit on to a task with a waker that panics: it does not
/// spin then (P2), and its shutdown ends.
#[test]
fn panicking_waker_of_the_next_in_the_queue_does_no_harm() {
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let gate = Gate::new(1);
        let held = gate.try_acquire().unwrap();
        let mut acceptor =
            trigger.on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
        let clients = endpoint.connect_many(3);
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.state(), State::Full);
        let mut task = Box::pin(gate.acquire());
        let waker = Waker::from(Arc::new(PanickingWaker));
        assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

        acceptor.control().shutdown_gracefully(Pending::Refuse(Refusal::Close), SHORT);
        drop(held);
        let (begin, mut passes) = (Instant::now(), 0);
        while !acceptor.state().is_terminal() {
            assert!(begin.elapsed() < LONG, "{trigger:?}: {}", acceptor.counters());
            for _ in 0..owner.wait(Duration::from_millis(5)) {
                passes += 1;
                let _ = catch_unwind(AssertUnwindSafe(|| acceptor.ready().count()));
            }
        }
        assert!(passes < 50, "{trigger:?}: {passes} passes");
        assert_eq!(acceptor.shutdown_report().map(|report| report.refused), Some(3), "{trigger:?}");
        assert_eq!(reads(&clients, Read::End), 3, "{trigger:?}");
        drop(task);
        assert!(gate.wait_idle(Some(LONG)), "P4");
    }
}
