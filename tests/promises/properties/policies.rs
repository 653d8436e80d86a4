//! The promises with filters behind the gate: rates, filters of peers, refusals at a limited rate, and the reserve
//! descriptor.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use epoll_acceptor::filter::{ConnectionInfo, Rejection, Reservation};
use epoll_acceptor::sim::{Action, GateMode, Policy, Real, Script, Setup, run};
use epoll_acceptor::{
    Acceptor, Counters, Epoll, Events, Filter, Gate, PeerLimit, RateLimit, Refusal, State, Token, Trigger,
    WhenFull,
};

use crate::properties::exhaustive::explore_all;
use crate::properties::setups;
use crate::thorough;

#[test]
fn promises_hold_for_every_policy_after_one_act() {
    explore_all("policies, one act", varied(if thorough() { 1 } else { 3 }), 1, Action::all);
}

#[test]
fn promises_hold_for_every_policy_after_two_acts() {
    explore_all("policies, two acts", varied(if thorough() { 3 } else { 43 }), 2, decisive);
}

/// Every n-th of the setups in which all pairs of choices meet, with every policy.
fn varied(step: usize) -> impl Iterator<Item = Setup> {
    // Otherwise some extras would never be met.
    assert!((2..=step).all(|n| step % n != 0 || setups::EXTRAS_COUNT % n != 0), "not coprime");
    let setups = setups::in_pairs().into_iter();
    setups
        .flat_map(|setup| (0..setups::EXTRAS_COUNT).map(move |n| setups::with_extra(&setup, n)))
        .step_by(step)
}

fn decisive(setup: &Setup) -> Vec<Action> {
    let mut acts = vec![
        Action::Free,
        Action::Exhaust,
        Action::Relieve,
        Action::Tick,
        Action::Connect(0),
        Action::Reset(0),
    ];
    acts.extend([Action::Pause(0), Action::Resume(0), Action::Stop(0), Action::Shut(0)]);
    if setup.acceptors > 1 {
        acts.extend([Action::Turn(1), Action::Drop(1)]);
    }
    acts
}

/// Five clients at a rate of one every 5 ms: each alarm admits one.
#[test]
fn throttled_acceptor_wakes_once_per_connection() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let setup = Setup { trigger, policy: Policy::Rate(1), queued: 5, ..Setup::plain() };
        let report =
            run::<Gate>(&setup, &Script::new(), &Real).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(report.delivered, 5);
        assert!(report.wakes <= 6, "{} wakeups", report.wakes);
    }
}

/// A permit that is granted to an acceptor which is throttled goes to the next waiter.
#[test]
fn permit_is_not_held_while_the_rate_throttles() {
    let setup =
        Setup { policy: Policy::Rate(1), gate: GateMode::Wait(1), acceptors: 2, queued: 2, ..Setup::plain() };
    let script = Script::new().at(40, Action::Free).at(90, Action::Tick).at(120, Action::Free);
    let report = run::<Gate>(&setup, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.delivered, 4);
}

/// The longest wait there is: until something else wakes the acceptor.
#[test]
fn retry_after_forever_is_a_wait() {
    #[derive(Clone)]
    struct Never(Arc<AtomicU32>);

    impl Filter for Never {
        type Permit = ();

        fn reserve(&self) -> Reservation<()> {
            match self.0.load(Ordering::Relaxed) {
                0 => Reservation::RetryAfter(Duration::MAX),
                _ => Reservation::Granted(()),
            }
        }
    }

    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(8).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let never = Never(Arc::default());
    let mut acceptor = Trigger::Edge.on(listener).filter(never.clone()).register(&epoll, Token(1)).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    epoll.wait(&mut events, None).unwrap();
    assert_eq!(acceptor.ready().count(), 0);
    assert_eq!(acceptor.state(), State::Throttled);
    never.0.store(1, Ordering::Relaxed);
    drop(acceptor.control().pause()); // any wakeup
    assert_eq!(acceptor.ready().count(), 1);
}

/// A filter with fixed answers that counts its calls.
#[derive(Default)]
struct Scripted {
    asked: AtomicU32,
    admitted: AtomicU32,
    cancelled: AtomicU32,
    retry_after: Option<Duration>,
    rejects_before: bool,
    rejects_after: bool,
}

impl Scripted {
    /// The number of calls of `reserve`, `admit` and `cancel`.
    fn calls(&self) -> [u32; 3] {
        [&self.asked, &self.admitted, &self.cancelled].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Filter for Scripted {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.retry_after {
            Some(wait) => Reservation::RetryAfter(wait),
            None if self.rejects_before => Reservation::Rejected(Rejection::close()),
            None => Reservation::Granted(()),
        }
    }

    fn admit(&self, _: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        if self.rejects_after { Err(Rejection::reset()) } else { Ok(()) }
    }

    fn cancel(&self, (): ()) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client, and one pass of an acceptor behind this gate and these filters.
fn pass_with_a_client<A: Filter, B: Filter>(gate: &Gate, filters: (A, B)) -> Counters {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(8).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (first, second) = filters;
    let mut acceptor = Trigger::Level
        .on(listener)
        .gate(gate)
        .filter(first)
        .filter(second)
        .register(&epoll, Token(1))
        .unwrap();
    let _client = TcpStream::connect(address).unwrap();
    epoll.wait(&mut events, None).unwrap();
    acceptor.drain(drop).unwrap();
    acceptor.counters()
}

#[test]
fn filters_are_not_asked_while_the_gate_is_full() {
    let filter = Scripted::default();
    let gate = Gate::new(1);
    let permit = gate.try_acquire();
    assert_eq!(pass_with_a_client(&gate, (&filter, ())).full, 1);
    assert_eq!(filter.calls(), [0, 0, 0]);
    drop(permit);
    assert_eq!(pass_with_a_client(&gate, (&filter, ())).delivered, 1);
    assert_eq!(filter.calls(), [1, 1, 0]);
}

#[test]
fn full_gate_that_sheds_cancels_the_filters() {
    let filter = Scripted::default();
    let gate = Gate::builder(0).when_full(WhenFull::Shed(Refusal::Close)).build();
    assert_eq!(pass_with_a_client(&gate, (&filter, ())).refused_full, 1);
    assert_eq!(filter.calls(), [1, 0, 1]);
}

#[test]
fn retry_later_wins_over_a_rejection() {
    let later = || Scripted { retry_after: Some(Duration::from_secs(60)), ..Scripted::default() };
    let rejects = || Scripted { rejects_before: true, ..Scripted::default() };
    let gate = Gate::new(1);
    for counters in
        [pass_with_a_client(&gate, (rejects(), later())), pass_with_a_client(&gate, (later(), rejects()))]
    {
        assert_eq!((counters.throttles, counters.attempts), (1, 0));
    }
    assert_eq!(pass_with_a_client(&gate, (rejects(), rejects())).refused_filter, 1);
    assert_eq!(gate.in_use(), 0);
}

#[test]
fn later_rejection_cancels_earlier_filters() {
    let gate = Gate::new(1);
    let (peers, rate) = (PeerLimit::new(1), RateLimit::builder(1).burst(1).build());
    let earlier = (peers.clone(), rate.clone(), Arc::new(Scripted::default()));
    let rejects = Scripted { rejects_after: true, ..Scripted::default() };
    for round in 1..=3 {
        let counters = pass_with_a_client(&gate, (&earlier, &rejects));
        assert_eq!((counters.refused_filter, counters.refused), (1, 1), "round {round}");
        assert_eq!((earlier.2.calls(), rejects.calls()), ([round; 3], [round; 3]));
        assert_eq!((gate.in_use(), peers.peers()), (0, 0));
    }
    assert!(matches!(rate.reserve(), Reservation::Granted(_)), "the token was put back each time");
    // A rejection before the accept grants nothing at all.
    let rejects = Scripted { rejects_before: true, ..Scripted::default() };
    assert_eq!(pass_with_a_client(&gate, (&earlier.2, &rejects)).refused_filter, 1);
    assert_eq!((earlier.2.calls(), rejects.calls()), ([4, 3, 4], [1, 0, 0]));
}
