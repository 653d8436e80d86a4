//! The promises with policies besides the gate: rates, one that looks at who came, refusals at a rate of their own, and the
//! reserve descriptor.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use epoll_acceptor::admission::{Bell, Ring};
use epoll_acceptor::sim::{Action, Explored, GateMode, Limited, Policy, Real, Script, Setup, explore, run};
use epoll_acceptor::{
    Acceptor, Admission, Both, Cause, Epoll, Events, Gate, Line, Permit, Refusal, Reserve, State, Token,
    Trigger, Until, WhenFull,
};

use crate::exhaustive::explore_all;
use crate::{cases, say, thorough};

#[test]
fn every_promise_holds_for_every_policy_after_one_act_anywhere() {
    explore_all("policies, one act", varied(if thorough() { 1 } else { 3 }), 1, Action::all);
}

#[test]
fn every_promise_holds_for_every_policy_after_two_acts() {
    explore_all("policies, two acts", varied(if thorough() { 3 } else { 41 }), 2, decisive);
}

/// Every case of the set in which all choices meet, with every policy; and of these every n-th.
fn varied(step: usize) -> impl Iterator<Item = Setup> {
    let cases = cases::in_pairs().into_iter();
    cases.flat_map(|case| (0..cases::EXTRAS_COUNT).map(move |n| cases::with_extra(&case, n))).step_by(step)
}

fn decisive(case: &Setup) -> Vec<Action> {
    let mut acts = vec![
        Action::Free,
        Action::Exhaust,
        Action::Relieve,
        Action::Tick,
        Action::Connect(0),
        Action::Reset(0),
    ];
    acts.extend([Action::Pause(0), Action::Resume(0), Action::Stop(0), Action::Shut(0)]);
    if case.acceptors > 1 {
        acts.extend([Action::Turn(1), Action::Drop(1)]);
    }
    acts
}

/// Five clients by a rate of one every 5 ms: each of the alarms brings one in.
#[test]
fn who_is_throttled_wakes_once_for_each_connection() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let case = Setup { trigger, extra: Policy::Rate(1), queued: 5, ..Setup::plain() };
        let report =
            run::<Gate>(&case, &Script::new(), &Real).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(report.delivered, 5);
        assert!(report.wakes <= 6, "{} wake-ups", report.wakes);
    }
}

/// A place that is handed to one that may not come in yet is passed on.
#[test]
fn a_place_is_not_held_while_the_rate_is_waited_for() {
    let case =
        Setup { extra: Policy::Rate(1), gate: GateMode::Pause(1), acceptors: 2, queued: 2, ..Setup::plain() };
    let script = Script::new().at(40, Action::Free).at(90, Action::Tick).at(120, Action::Free);
    let report = run::<Gate>(&case, &script, &Real).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.delivered, 4);
}

/// Two gates that everybody has to pass, one with a place more: whoever has a place of one and none of the other lets it
/// go. Nobody sleeps on it, and no two pass it to and fro.
#[derive(Clone)]
struct TwoGates(Both<Gate, Gate>);

impl Admission for TwoGates {
    type Permit = (Permit, Permit);

    fn reserve(&self) -> Reserve<Self::Permit> {
        self.0.reserve()
    }

    fn never_waits(&self) -> bool {
        self.0.never_waits()
    }

    fn cancel(&self, permit: Self::Permit) {
        self.0.cancel(permit);
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        self.0.stand(bell, until)
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        self.0.leave(bell)
    }

    fn fetch(&self, bell: &Arc<Bell>) -> Option<Reserve<Self::Permit>> {
        self.0.fetch(bell)
    }
}

impl Limited for TwoGates {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        let first = Gate::new(limit).when_full(when_full.clone());
        Self(first.and(Gate::new(limit.saturating_add(1)).when_full(when_full)))
    }

    fn change_limit(&self, limit: u32) {
        // In this order there are moments at which the second is the narrower one.
        self.0.first().set_limit(limit.saturating_add(1));
        self.0.second().set_limit(limit);
    }
}

#[test]
fn every_promise_but_the_line_holds_behind_two_gates() {
    let mut total = Explored::default();
    for case in cases::in_pairs() {
        match explore::<TwoGates>(&case, &Real, &Action::all(&case), 1) {
            Ok(more) => total.join(more),
            Err((_, violation)) if violation.promise == "P11" && violation.what.contains("in line") => {}
            Err((script, violation)) => panic!("{violation}\nin {case:?}\nafter\n{script}"),
        }
    }
    say(&format!("two gates, one act: {} scripts, {} points", total.scripts, total.points));
}

/// Rings that are counted.
#[derive(Clone, Default)]
struct Rings(Arc<AtomicU32>);

impl Ring for Rings {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Both gates are full, one pauses and one sheds: the one that pauses is waited for, and then the other is asked.
#[test]
fn who_sheds_is_not_waited_for() {
    let shedding = Gate::new(1).when_full(WhenFull::Shed(Refusal::Reset));
    let pausing = Gate::new(1);
    for first_sheds in [true, false] {
        let held = [shedding.try_acquire().unwrap(), pausing.try_acquire().unwrap()];
        let [of_shedding, of_pausing] = held;
        let both = match first_sheds {
            true => shedding.clone().and(pausing.clone()),
            false => pausing.clone().and(shedding.clone()),
        };
        let rings = Rings::default();
        let bell = Arc::new(Bell::new(Box::new(rings.clone())));
        assert!(matches!(both.reserve(), Reserve::Full), "to wait goes before to refuse");
        assert_eq!(both.stand(&bell, Until::Room), Line::Standing);
        drop(of_pausing);
        assert_eq!(rings.0.load(Ordering::Relaxed), 1, "the place that it waits for has come back");
        assert_eq!(both.stand(&bell, Until::Room), Line::Turn);
        assert!(matches!(both.fetch(&bell), Some(Reserve::Shed(denied)) if denied.cause == Cause::Full));
        assert_eq!((pausing.in_use(), shedding.in_use()), (0, 1));
        drop(of_shedding);
        assert_eq!(rings.0.load(Ordering::Relaxed), 1);
    }
}

/// A policy that says that there is room when one stands, and gives none: two parts that share a gate do.
#[test]
fn two_parts_that_share_a_gate_do_not_spin() {
    let gate = Gate::new(1);
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(8).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let policy = gate.clone().and(gate.clone());
    let mut acceptor = Trigger::Level.on(listener).admission(policy).register(&epoll, Token(1)).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let begin = Instant::now();
    let mut wakes = 0;
    while begin.elapsed() < Duration::from_millis(50) {
        wakes += epoll.wait(&mut events, Some(Duration::from_millis(50))).unwrap().count();
        events.clear();
        assert_eq!(acceptor.ready().count(), 0);
    }
    let most = 2 + begin.elapsed().as_millis();
    assert!(wakes as u128 <= most, "{wakes} wake-ups in {:?}", begin.elapsed());
    gate.set_limit(2);
    while acceptor.counters().delivered == 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", acceptor.counters());
        epoll.wait(&mut events, Some(Duration::from_millis(50))).unwrap();
        events.clear();
        acceptor.drain(drop).unwrap();
    }
}

/// The longest wait there is, which a policy may mean by "until I say so".
#[test]
fn a_wait_for_ever_is_a_wait() {
    #[derive(Clone)]
    struct Never(Arc<AtomicU32>);

    impl Admission for Never {
        type Permit = ();

        fn reserve(&self) -> Reserve<()> {
            match self.0.load(Ordering::Relaxed) {
                0 => Reserve::NotBefore(Duration::MAX),
                _ => Reserve::Room(()),
            }
        }

        fn cancel(&self, (): ()) {}

        fn stand(&self, _: &Arc<Bell>, _: Until) -> Line {
            Line::Room
        }

        fn leave(&self, _: &Arc<Bell>) -> Option<()> {
            None
        }
    }

    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(8).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let never = Never(Arc::default());
    let mut acceptor =
        Trigger::Edge.on(listener).admission(never.clone()).register(&epoll, Token(1)).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    epoll.wait(&mut events, None).unwrap();
    assert_eq!(acceptor.ready().count(), 0);
    assert_eq!(acceptor.state(), State::Throttled);
    never.0.store(1, Ordering::Relaxed);
    acceptor.control().resume();
    assert_eq!(acceptor.ready().count(), 1);
}
