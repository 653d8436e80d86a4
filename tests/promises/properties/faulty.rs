//! Filters that decide by the peer, each with one fault: the checker finds every one of them, and none in the crate's own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::filter::{Cause, Clock, ConnectionInfo, Rejection, Reservation};
use epoll_acceptor::sim::{
    Action, BuiltIn, GateMode, Policy, PolicyFilter, Real, Script, Setup, Violation, explore_with, run,
    run_with,
};
use epoll_acceptor::{Filter, Gate, Refusal};

/// The faults of a limit per peer.
const SOUND: u8 = 0;
const LEAKS_WHEN_CANCELLED: u8 = 1;
const LEAKS_WHEN_CLOSED: u8 = 2;
const RELEASES_TWICE: u8 = 3;
const ONE_TOO_MANY: u8 = 4;
const EACH_PORT_IS_A_PEER: u8 = 5;
const ALL_ARE_ONE_PEER: u8 = 6;
const COUNTS_THE_REFUSED: u8 = 7;

#[derive(Clone)]
struct Peers<const FAULT: u8> {
    limit: u32,
    counts: Counts,
}

type Counts = Arc<Mutex<HashMap<SocketAddr, u32>>>;

struct PeerPermit<const FAULT: u8>(Option<(Counts, SocketAddr)>);

impl<const FAULT: u8> PeerPermit<FAULT> {
    fn release(&self) {
        if let Some((counts, peer)) = &self.0 {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(*peer).or_default();
            *count = count.saturating_sub(1);
        }
    }
}

impl<const FAULT: u8> Drop for PeerPermit<FAULT> {
    fn drop(&mut self) {
        if FAULT != LEAKS_WHEN_CLOSED {
            self.release();
        }
    }
}

impl<const FAULT: u8> PolicyFilter for Peers<FAULT> {
    fn of(policy: Policy, _: &Arc<dyn Clock>) -> Option<Self> {
        match policy {
            Policy::Peers(limit) | Policy::PeersThenChoosy(limit) => {
                Some(Self { limit, counts: Arc::default() })
            }
            other => panic!("{other:?} has no limit per peer"),
        }
    }
}

impl<const FAULT: u8> Filter for Peers<FAULT> {
    type Permit = PeerPermit<FAULT>;

    fn reserve(&self) -> Reservation<Self::Permit> {
        Reservation::Granted(PeerPermit(None))
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut Self::Permit) -> Result<(), Rejection> {
        let address = connection.peer().expect("read with the accept");
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
        *permit = PeerPermit(Some((Arc::clone(&self.counts), peer)));
        Ok(())
    }

    fn cancel(&self, permit: Self::Permit) {
        match FAULT {
            LEAKS_WHEN_CANCELLED => std::mem::forget(permit),
            RELEASES_TWICE => permit.release(),
            _ => {}
        }
    }

    fn needs_peer_addr(&self) -> bool {
        true
    }
}

fn peers<const FAULT: u8>(policy: Policy) -> Result<(), (Script, Violation)> {
    let setup = Setup { policy, gate: GateMode::Wait(100), queued: 16, ..Setup::plain() };
    explore_with::<Gate, Peers<FAULT>>(&setup, &Real, &[Action::Connect(0), Action::Free], 1).map(drop)
}

#[track_caller]
fn assert_broken(outcome: Result<(), (Script, Violation)>, promise: &str) {
    let (_, violation) = outcome.expect_err("the fault was not found");
    assert_eq!(violation.promise, promise, "{violation}");
}

#[test]
fn sound_peer_limit_keeps_every_promise() {
    for policy in [Policy::Peers(1), Policy::Peers(2), Policy::PeersThenChoosy(1), Policy::PeersThenChoosy(2)]
    {
        peers::<SOUND>(policy).unwrap_or_else(|(script, violation)| panic!("{violation}\nafter\n{script}"));
    }
}

#[test]
fn permit_leaked_by_a_later_rejection_is_found() {
    assert_broken(peers::<LEAKS_WHEN_CANCELLED>(Policy::PeersThenChoosy(1)), "P4");
}

#[test]
fn permit_leaked_by_the_close_is_found() {
    assert_broken(peers::<LEAKS_WHEN_CLOSED>(Policy::Peers(1)), "P4");
}

#[test]
fn permit_released_twice_is_found() {
    assert_broken(peers::<RELEASES_TWICE>(Policy::PeersThenChoosy(2)), "P3");
}

#[test]
fn limit_exceeded_by_one_is_found() {
    assert_broken(peers::<ONE_TOO_MANY>(Policy::Peers(1)), "P3");
}

#[test]
fn limit_by_address_and_port_is_found() {
    assert_broken(peers::<EACH_PORT_IS_A_PEER>(Policy::Peers(1)), "P3");
}

#[test]
fn limit_over_all_peers_is_found() {
    assert_broken(peers::<ALL_ARE_ONE_PEER>(Policy::Peers(1)), "P4");
}

#[test]
fn limit_that_counts_refused_peers_is_found() {
    assert_broken(peers::<COUNTS_THE_REFUSED>(Policy::Peers(1)), "P4");
}

/// The faults of a limit on the time in the queue.
const ONE_SPIKE: u8 = 1;
const BY_AVERAGE: u8 = 2;
const NEVER_RECOVERS: u8 = 3;
const NEVER_REFUSES: u8 = 4;
const NO_MAXIMUM: u8 = 5;
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

impl<const FAULT: u8> PolicyFilter for Delay<FAULT> {
    fn of(_: Policy, clock: &Arc<dyn Clock>) -> Option<Self> {
        Some(Self { clock: Arc::clone(clock), seen: Arc::default() })
    }
}

impl<const FAULT: u8> Filter for Delay<FAULT> {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        let rejected = Err(Rejection::new(Cause::Delay, Refusal::Close));
        let Some(queued) = connection.queue_time() else {
            return if FAULT == REFUSES_UNMEASURED { rejected } else { Ok(()) };
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
        let too_late = FAULT != NO_MAXIMUM && queued > Policy::MAX_DELAY;
        if too_late || (overloaded && queued > 2 * Policy::TARGET) { rejected } else { Ok(()) }
    }
}

/// Each client connects while no permit is available, and is served 5 ms later: too late, again too late, in time, and
/// too late once more.
fn two_overloads() -> Script {
    use Action::{Connect, Free, Tick};
    let acts = [Tick, Connect(0), Tick, Free, Connect(0), Tick, Free, Connect(0), Connect(0), Tick, Free];
    acts.into_iter().fold(Script::new(), |script, act| script.after(40, act))
}

fn delay<F: PolicyFilter>(script: &Script) -> Result<(), Violation> {
    let setup = Setup { policy: Policy::Delay, gate: GateMode::Wait(1), queued: 1, ..Setup::plain() };
    run_with::<Gate, F>(&setup, script, &Real).map(drop)
}

/// Connections are queued behind a full gate for two ticks.
fn long_wait() -> Script {
    use Action::{Connect, Free, Tick};
    [Connect(0), Tick, Tick, Free].into_iter().fold(Script::new(), |script, act| script.after(40, act))
}

#[track_caller]
fn assert_found<F: PolicyFilter>(script: &Script, what: &str) {
    let violation = delay::<F>(script).expect_err("the fault was not found");
    assert!(violation.promise == "P5" && violation.what.contains(what), "{violation}");
}

#[test]
fn sound_queue_delay_keeps_every_promise() {
    for script in [two_overloads(), long_wait()] {
        delay::<Delay<SOUND>>(&script).unwrap_or_else(|violation| panic!("{violation}"));
        delay::<BuiltIn>(&script).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn delay_that_refuses_one_spike_is_found() {
    assert_found::<Delay<ONE_SPIKE>>(&two_overloads(), "without overload");
}

#[test]
fn delay_by_the_average_is_found() {
    assert_found::<Delay<BY_AVERAGE>>(&two_overloads(), "without overload");
}

#[test]
fn delay_that_never_recovers_is_found() {
    assert_found::<Delay<NEVER_RECOVERS>>(&two_overloads(), "without overload");
}

#[test]
fn delay_that_never_refuses_is_found() {
    assert_found::<Delay<NEVER_REFUSES>>(&two_overloads(), "was admitted during overload");
}

#[test]
fn delay_without_a_maximum_is_found() {
    assert_found::<Delay<NO_MAXIMUM>>(&long_wait(), "was delivered");
}

#[test]
fn delay_that_refuses_the_unmeasured_is_found() {
    let setup = Setup {
        policy: Policy::Delay,
        gate: GateMode::Wait(1),
        queued: 1,
        reports_length: false,
        ..Setup::plain()
    };
    let outcome = run_with::<Gate, Delay<REFUSES_UNMEASURED>>(&setup, &Script::new(), &Real);
    assert_eq!(outcome.expect_err("the fault was not found").promise, "P5");
}

/// The faults of a list of allowed users.
const OWN_GROUP_ONLY: u8 = 1;
const UNKNOWN_IS_ALLOWED: u8 = 2;
const EVERY_USER: u8 = 3;

#[derive(Clone)]
struct Allowed<const FAULT: u8>;

impl<const FAULT: u8> PolicyFilter for Allowed<FAULT> {
    fn of(_: Policy, _: &Arc<dyn Clock>) -> Option<Self> {
        Some(Self)
    }
}

impl<const FAULT: u8> Filter for Allowed<FAULT> {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        let allowed = match connection.credentials() {
            None => FAULT == UNKNOWN_IS_ALLOWED,
            Some(_) if FAULT == EVERY_USER => true,
            Some(of) if FAULT == OWN_GROUP_ONLY => of.uid == Policy::USER || of.gid == Policy::GROUP,
            Some(of) => of.uid == Policy::USER || connection.is_in_group(Policy::GROUP) == Some(true),
        };
        if allowed { Ok(()) } else { Err(Rejection::new(Cause::Credentials, Refusal::Close)) }
    }
}

fn allowed<const FAULT: u8>(reports_length: bool) -> Result<(), Violation> {
    let setup = Setup {
        policy: Policy::Allowed,
        gate: GateMode::Wait(9),
        queued: 12,
        reports_length,
        ..Setup::plain()
    };
    run_with::<Gate, Allowed<FAULT>>(&setup, &Script::new(), &Real).map(drop)
}

#[test]
fn every_fault_of_allowed_users_is_found() {
    for reports_length in [false, true] {
        allowed::<SOUND>(reports_length).unwrap_or_else(|violation| panic!("{violation}"));
    }
    for outcome in
        [allowed::<OWN_GROUP_ONLY>(false), allowed::<UNKNOWN_IS_ALLOWED>(true), allowed::<EVERY_USER>(false)]
    {
        assert_eq!(outcome.expect_err("the fault was not found").promise, "P5");
    }
}

/// The crate's own filters, with which all setups are explored, refuse no more than they must.
#[test]
fn built_in_filters_admit_what_they_may() {
    let setup = |policy, reports_length| Setup { policy, queued: 12, reports_length, ..Setup::plain() };
    let delivered = |policy, reports_length| {
        let report = run::<Gate>(&setup(policy, reports_length), &Script::new(), &Real);
        report.unwrap_or_else(|violation| panic!("{violation}")).delivered
    };
    // Two addresses, or users, in turns.
    assert_eq!(delivered(Policy::Peers(2), true), 4);
    assert_eq!(delivered(Policy::Peers(2), false), 4);
    // Half of them are the user, and a third of the others in the group.
    assert_eq!(delivered(Policy::Allowed, false), 8);
    assert_eq!(delivered(Policy::Allowed, true), 0);
}
