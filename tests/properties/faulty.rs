//! Policies that look at who comes, each with one fault: the books find every one of them, and none in the crate's own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::admission::Bell;
use epoll_acceptor::admission::Clock;
use epoll_acceptor::sim::{Action, GateMode, Limited, Policy, Real, Script, Setup, Violation, explore, run};
use epoll_acceptor::{
    Admission, Cause, ConnectionInfo, Gate, Line, Permit, QueueDelay, Refusal, Rejection, Reserve, Until,
    WhenFull,
};

/// A policy that only says after the accept who may come in.
trait Doorman: Clone + Send + Sync + 'static {
    /// What a connection holds of it.
    type Place: Default + Send;

    fn new(extra: Policy, clock: Arc<dyn Clock>) -> Self;
    fn admit(&self, newcomer: &dyn ConnectionInfo, place: &mut Self::Place) -> Result<(), Rejection>;
    fn cancel(&self, place: Self::Place) {
        drop(place);
    }
}

/// A gate, and such a policy behind it.
#[derive(Clone)]
struct Behind<D> {
    gate: Gate,
    doorman: Option<D>,
}

impl<D: Doorman> Admission for Behind<D> {
    type Permit = (Permit, D::Place);

    fn reserve(&self) -> Reserve<Self::Permit> {
        match self.gate.reserve() {
            Reserve::Room(permit) => Reserve::Room((permit, D::Place::default())),
            Reserve::Full => Reserve::Full,
            Reserve::NotBefore(wait) => Reserve::NotBefore(wait),
            Reserve::Shed(denied) => Reserve::Shed(denied),
        }
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, (_, place): &mut Self::Permit) -> Result<(), Rejection> {
        self.doorman.as_ref().map_or(Ok(()), |doorman| doorman.admit(newcomer, place))
    }

    fn wants_peer(&self) -> bool {
        true
    }

    fn cancel(&self, (permit, place): Self::Permit) {
        if let Some(doorman) = &self.doorman {
            doorman.cancel(place);
        }
        self.gate.cancel(permit);
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        self.gate.stand(bell, until)
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        self.gate.leave(bell).map(|permit| (permit, D::Place::default()))
    }
}

impl<D: Doorman> Limited for Behind<D> {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        Self { gate: Gate::new(limit).when_full(when_full), doorman: None }
    }

    fn change_limit(&self, limit: u32) {
        self.gate.set_limit(limit);
    }

    fn with_extra(&self, extra: Policy, clock: &Arc<dyn Clock>) -> Option<Self> {
        Some(Self { gate: self.gate.clone(), doorman: Some(D::new(extra, Arc::clone(clock))) })
    }
}

/// What may be wrong with a limit for each peer.
const SOUND: u8 = 0;
const LEAKS_WHEN_CANCELLED: u8 = 1;
const LEAKS_WHEN_CLOSED: u8 = 2;
const GIVES_BACK_TWICE: u8 = 3;
const ONE_TOO_MANY: u8 = 4;
const EACH_PORT_IS_A_PEER: u8 = 5;
const ALL_ARE_ONE_PEER: u8 = 6;
const COUNTS_THE_REFUSED: u8 = 7;

#[derive(Clone)]
struct Peers<const FAULT: u8> {
    limit: u32,
    then_choosy: bool,
    counts: Counts,
}

type Counts = Arc<Mutex<HashMap<SocketAddr, u32>>>;

#[derive(Default)]
struct PeerPlace<const FAULT: u8>(Option<(Counts, SocketAddr)>);

impl<const FAULT: u8> PeerPlace<FAULT> {
    fn give_back(&self) {
        if let Some((counts, peer)) = &self.0 {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(*peer).or_default();
            *count = count.saturating_sub(1);
        }
    }
}

impl<const FAULT: u8> Drop for PeerPlace<FAULT> {
    fn drop(&mut self) {
        if FAULT != LEAKS_WHEN_CLOSED {
            self.give_back();
        }
    }
}

impl<const FAULT: u8> Doorman for Peers<FAULT> {
    type Place = PeerPlace<FAULT>;

    fn new(extra: Policy, _: Arc<dyn Clock>) -> Self {
        let (limit, then_choosy) = match extra {
            Policy::Peers(limit) => (limit, false),
            Policy::PeersThenChoosy(limit) => (limit, true),
            other => panic!("{other:?} is no limit for each peer"),
        };
        Self { limit, then_choosy, counts: Arc::default() }
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, place: &mut Self::Place) -> Result<(), Rejection> {
        let address = newcomer.peer().expect("asked for with the accept");
        let peer = match FAULT {
            EACH_PORT_IS_A_PEER => address,
            ALL_ARE_ONE_PEER => ([0, 0, 0, 0], 0).into(),
            _ => (address.ip(), 0).into(),
        };
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(peer).or_default();
        let full = if FAULT == ONE_TOO_MANY { *count > self.limit } else { *count >= self.limit };
        if full {
            *count += u32::from(FAULT == COUNTS_THE_REFUSED);
            return Err(Rejection::new(Cause::Peer, Refusal::Close));
        }
        *count += 1;
        drop(counts);
        *place = PeerPlace(Some((Arc::clone(&self.counts), peer)));
        if self.then_choosy && address.port() % 3 == 1 {
            return Err(Rejection::new(Cause::Policy, Refusal::Close));
        }
        Ok(())
    }

    fn cancel(&self, place: Self::Place) {
        match FAULT {
            LEAKS_WHEN_CANCELLED => std::mem::forget(place),
            GIVES_BACK_TWICE => place.give_back(),
            _ => {}
        }
    }
}

fn peers<const FAULT: u8>(extra: Policy) -> Result<(), (Script, Violation)> {
    let case = Setup { extra, gate: GateMode::Pause(100), queued: 16, ..Setup::plain() };
    explore::<Behind<Peers<FAULT>>>(&case, &Real, &[Action::Connect(0), Action::Free], 1).map(drop)
}

#[track_caller]
fn assert_broken(outcome: Result<(), (Script, Violation)>, promise: &str) {
    let (_, violation) = outcome.expect_err("the fault was not found");
    assert_eq!(violation.promise, promise, "{violation}");
}

#[test]
fn a_limit_for_each_peer_without_fault_is_found_to_have_none() {
    for extra in [Policy::Peers(1), Policy::Peers(2), Policy::PeersThenChoosy(1), Policy::PeersThenChoosy(2)]
    {
        peers::<SOUND>(extra).unwrap_or_else(|(script, violation)| panic!("{violation}\nafter\n{script}"));
    }
}

#[test]
fn a_place_that_leaks_when_a_later_policy_refuses_is_found() {
    assert_broken(peers::<LEAKS_WHEN_CANCELLED>(Policy::PeersThenChoosy(1)), "P4");
}

#[test]
fn a_place_that_does_not_come_back_is_found() {
    assert_broken(peers::<LEAKS_WHEN_CLOSED>(Policy::Peers(1)), "P4");
}

#[test]
fn a_place_that_comes_back_twice_is_found() {
    assert_broken(peers::<GIVES_BACK_TWICE>(Policy::PeersThenChoosy(2)), "P3");
}

#[test]
fn a_limit_that_lets_one_more_in_is_found() {
    assert_broken(peers::<ONE_TOO_MANY>(Policy::Peers(1)), "P3");
}

#[test]
fn a_limit_that_goes_by_the_port_as_well_is_found() {
    assert_broken(peers::<EACH_PORT_IS_A_PEER>(Policy::Peers(1)), "P3");
}

#[test]
fn a_limit_that_goes_by_nothing_is_found() {
    assert_broken(peers::<ALL_ARE_ONE_PEER>(Policy::Peers(1)), "P4");
}

#[test]
fn a_limit_that_counts_those_it_refused_is_found() {
    assert_broken(peers::<COUNTS_THE_REFUSED>(Policy::Peers(1)), "P4");
}

/// What may be wrong with a limit for the time in the queue.
const ONE_SPIKE: u8 = 1;
const BY_AVERAGE: u8 = 2;
const NEVER_RECOVERS: u8 = 3;
const NEVER_REFUSES: u8 = 4;
const NO_CUT_OFF: u8 = 5;
const REFUSES_UNMEASURED: u8 = 6;

#[derive(Clone)]
struct Delay<const FAULT: u8> {
    clock: Arc<dyn Clock>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    high_since: Option<Duration>,
    average: Duration,
    overloaded: bool,
}

impl<const FAULT: u8> Doorman for Delay<FAULT> {
    type Place = ();

    fn new(_: Policy, clock: Arc<dyn Clock>) -> Self {
        Self { clock, seen: Arc::default() }
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, (): &mut ()) -> Result<(), Rejection> {
        let denied = Err(Rejection::new(Cause::Delay, Refusal::Close));
        let Some(queued) = newcomer.queued() else {
            return if FAULT == REFUSES_UNMEASURED { denied } else { Ok(()) };
        };
        let (now, mut seen) = (self.clock.now(), self.seen.lock().unwrap());
        seen.average = (seen.average + queued) / 2;
        if queued > Policy::TARGET {
            let since = *seen.high_since.get_or_insert(now);
            seen.overloaded |= now - since >= Policy::INTERVAL;
        } else {
            seen.high_since = None;
            seen.overloaded &= FAULT == NEVER_RECOVERS;
        }
        let overloaded = match FAULT {
            ONE_SPIKE => true,
            BY_AVERAGE => seen.average > Policy::TARGET,
            NEVER_REFUSES => false,
            _ => seen.overloaded,
        };
        let too_late = FAULT != NO_CUT_OFF && queued > Policy::MAX_DELAY;
        if too_late || (overloaded && queued > 2 * Policy::TARGET) { denied } else { Ok(()) }
    }
}

impl Doorman for QueueDelay<Arc<dyn Clock>> {
    type Place = ();

    fn new(_: Policy, clock: Arc<dyn Clock>) -> Self {
        Self::with_clock(Policy::TARGET, clock).interval(Policy::INTERVAL).max_delay(Policy::MAX_DELAY)
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, (): &mut ()) -> Result<(), Rejection> {
        Admission::admit(self, newcomer, &mut ())
    }
}

/// Each comes when all places are taken, and is served 5 ms later: too late, and again, in time, and too late once more.
fn two_overloads() -> Script {
    use Action::{Connect, Free, Tick};
    let acts = [Tick, Connect(0), Tick, Free, Connect(0), Tick, Free, Connect(0), Connect(0), Tick, Free];
    acts.into_iter().fold(Script::new(), |script, act| script.after(40, act))
}

fn delay<D: Doorman>(script: &Script) -> Result<(), Violation> {
    let case = Setup { extra: Policy::Delay, gate: GateMode::Pause(1), queued: 1, ..Setup::plain() };
    run::<Behind<D>>(&case, script, &Real).map(drop)
}

/// Three are queued behind a full gate for two ticks.
fn long_wait() -> Script {
    use Action::{Connect, Free, Tick};
    [Connect(0), Tick, Tick, Free].into_iter().fold(Script::new(), |script, act| script.after(40, act))
}

#[track_caller]
fn assert_found<D: Doorman>(script: &Script, what: &str) {
    let violation = delay::<D>(script).expect_err("the fault was not found");
    assert!(violation.promise == "P5" && violation.what.contains(what), "{violation}");
}

#[test]
fn a_limit_for_the_delay_without_fault_is_found_to_have_none() {
    for script in [two_overloads(), long_wait()] {
        delay::<Delay<SOUND>>(&script).unwrap_or_else(|violation| panic!("{violation}"));
        delay::<QueueDelay<Arc<dyn Clock>>>(&script).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn a_delay_that_takes_one_spike_for_overload_is_found() {
    assert_found::<Delay<ONE_SPIKE>>(&two_overloads(), "without overload");
}

#[test]
fn a_delay_that_goes_by_the_average_is_found() {
    assert_found::<Delay<BY_AVERAGE>>(&two_overloads(), "without overload");
}

#[test]
fn a_delay_that_never_recovers_is_found() {
    assert_found::<Delay<NEVER_RECOVERS>>(&two_overloads(), "without overload");
}

#[test]
fn a_delay_that_never_refuses_is_found() {
    assert_found::<Delay<NEVER_REFUSES>>(&two_overloads(), "let in by an overloaded policy");
}

#[test]
fn a_delay_without_cut_off_is_found() {
    assert_found::<Delay<NO_CUT_OFF>>(&long_wait(), "was delivered");
}

#[test]
fn a_delay_that_refuses_whom_nobody_measured_is_found() {
    let case = Setup {
        extra: Policy::Delay,
        gate: GateMode::Pause(1),
        queued: 1,
        measurable: false,
        ..Setup::plain()
    };
    let outcome = run::<Behind<Delay<REFUSES_UNMEASURED>>>(&case, &Script::new(), &Real);
    assert_eq!(outcome.expect_err("the fault was not found").promise, "P5");
}

/// What may be wrong with a list of who may come.
const OWN_GROUP_ONLY: u8 = 1;
const UNKNOWN_IS_ALLOWED: u8 = 2;
const EVERY_USER: u8 = 3;

#[derive(Clone)]
struct Allowed<const FAULT: u8>;

impl<const FAULT: u8> Doorman for Allowed<FAULT> {
    type Place = ();

    fn new(_: Policy, _: Arc<dyn Clock>) -> Self {
        Self
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, (): &mut ()) -> Result<(), Rejection> {
        let allowed = match newcomer.credentials() {
            None => FAULT == UNKNOWN_IS_ALLOWED,
            Some(_) if FAULT == EVERY_USER => true,
            Some(who) if FAULT == OWN_GROUP_ONLY => who.uid == Policy::USER || who.gid == Policy::GROUP,
            Some(who) => who.uid == Policy::USER || newcomer.is_in_group(Policy::GROUP) == Some(true),
        };
        if allowed { Ok(()) } else { Err(Rejection::new(Cause::Credentials, Refusal::Close)) }
    }
}

fn allowed<const FAULT: u8>(measurable: bool) -> Result<(), Violation> {
    let case =
        Setup { extra: Policy::Allowed, gate: GateMode::Pause(9), queued: 12, measurable, ..Setup::plain() };
    run::<Behind<Allowed<FAULT>>>(&case, &Script::new(), &Real).map(drop)
}

#[test]
fn every_fault_of_a_list_of_peers_is_found() {
    for measurable in [false, true] {
        allowed::<SOUND>(measurable).unwrap_or_else(|violation| panic!("{violation}"));
    }
    for outcome in
        [allowed::<OWN_GROUP_ONLY>(false), allowed::<UNKNOWN_IS_ALLOWED>(true), allowed::<EVERY_USER>(false)]
    {
        assert_eq!(outcome.expect_err("the fault was not found").promise, "P5");
    }
}

/// The crate's own, in the same places, are the ones that all cases are explored with.
#[test]
fn who_gets_in_is_as_many_as_may() {
    let case = |extra, measurable| Setup { extra, queued: 12, measurable, ..Setup::plain() };
    let delivered = |extra, measurable| {
        let report = run::<Gate>(&case(extra, measurable), &Script::new(), &Real);
        report.unwrap_or_else(|violation| panic!("{violation}")).delivered
    };
    // Two addresses, or users, in turns.
    assert_eq!(delivered(Policy::Peers(2), true), 4);
    assert_eq!(delivered(Policy::Peers(2), false), 4);
    // Half of them are the user, and a third of the others in the group.
    assert_eq!(delivered(Policy::Allowed, false), 8);
    assert_eq!(delivered(Policy::Allowed, true), 0);
}
