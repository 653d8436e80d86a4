//! The cause derived from each combination of facts, and properties of the table.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::doctor::facts::{self, Clients, RegistrationFacts, Sample};
use crate::probe::calls::CallRates;
use crate::probe::owners::FdTable;
use crate::probe::{Activity, Trigger};

const SAMPLES: usize = 20;

fn samples(queued: u32, asleep: bool) -> Vec<Sample> {
    vec![Sample { queued, asleep: Some(asleep) }; SAMPLES]
}

/// Seven connections wait, none is accepted, and the owner sleeps in epoll 4 with this trigger.
fn asleep(trigger: Trigger) -> Facts {
    let registration =
        RegistrationFacts { trigger, within_edge: false, is_of_runtime: false, awaited: Some(true) };
    Facts {
        samples: samples(7, true),
        capacity: 65,
        dropped: Some(0),
        any_accepted: Some(false),
        clients: Clients { open: 1, ..Clients::default() },
        owner: Some(facts::Owner {
            registrations: vec![registration],
            activities: vec![Activity::EpollWait(Some(4))],
            fd_table: Some(FdTable { used: 10, limit: 1024 }),
            accepted_alive: 1,
            processes: 1,
            processes_serving: 1,
            ..facts::Owner::default()
        }),
        system_files: Some(FdTable { used: 1000, limit: 100_000 }),
        ..Facts::default()
    }
}

/// As `asleep`, but in no epoll, and blocked in this call.
fn unwatched(activity: Activity) -> Facts {
    with(asleep(Trigger::Level), |owner| {
        owner.registrations.clear();
        owner.activities = vec![activity];
    })
}

/// The threads are blocked in calls other than the listener's epoll_wait.
fn elsewhere(facts: Facts, activity: Activity) -> Facts {
    with(facts, |owner| {
        owner.registrations.iter_mut().for_each(|registration| registration.awaited = Some(false));
        owner.activities = vec![activity];
    })
}

fn with(mut facts: Facts, change: impl FnOnce(&mut facts::Owner)) -> Facts {
    change(facts.owner.as_mut().expect("an owner"));
    facts
}

fn clients(mut facts: Facts, change: impl FnOnce(&mut Clients)) -> Facts {
    change(&mut facts.clients);
    facts
}

/// No connection that was accepted here is open.
fn alone(facts: Facts) -> Facts {
    let facts = with(facts, |owner| (owner.accepted_alive, owner.processes_serving) = (0, 0));
    clients(facts, |clients| clients.open = 0)
}

fn runtime(facts: Facts) -> Facts {
    with(facts, |owner| owner.registrations[0].is_of_runtime = true)
}

fn running(facts: Facts, cpu: f64) -> Facts {
    let mut facts = with(facts, |owner| {
        (owner.cpu, owner.never_asleep) = (cpu, true);
        owner.activities = vec![Activity::Running];
        owner.registrations.iter_mut().for_each(|registration| registration.awaited = None);
    });
    facts.samples = samples(7, false);
    facts
}

fn counted(facts: Facts, waits: f64, sleeps: f64) -> Facts {
    with(facts, |owner| owner.calls = Some(CallRates { all: 100_000.0, waits, sleeps }))
}

fn empty(mut facts: Facts) -> Facts {
    facts.samples = samples(0, true);
    facts
}

fn arriving(facts: Facts) -> Facts {
    clients(empty(facts), |clients| clients.arrived = true)
}

fn taking(mut facts: Facts) -> Facts {
    facts.any_accepted = Some(true);
    facts.accept_rate = Some(500.0);
    facts.samples = samples(7, false);
    facts
}

fn hidden(mut facts: Facts) -> Facts {
    facts.owner = None;
    facts
}

fn stopped(facts: Facts) -> Facts {
    with(facts, |owner| (owner.stopped, owner.activities) = (vec![9], vec![Activity::Stopped]))
}

fn check(table: impl IntoIterator<Item = (&'static str, Facts, Cause)>) {
    for (what, facts, cause) in table {
        assert_eq!(diagnose(&facts).cause, cause, "{what}: {facts:#?}");
    }
}

#[test]
fn sleeping_owner_with_lossy_trigger_is_stranded() {
    let nested = |facts| with(facts, |owner| owner.registrations[0].within_edge = true);
    let mut dequeues_dead = asleep(Trigger::Edge);
    dequeues_dead.any_accepted = Some(true);
    let two = with(asleep(Trigger::Edge), |owner| {
        let disarmed = RegistrationFacts { trigger: Trigger::Disarmed, ..owner.registrations[0] };
        owner.registrations.push(disarmed);
    });
    let another_computes = with(asleep(Trigger::Edge), |owner| {
        (owner.cpu, owner.never_asleep) = (0.99, true);
        owner.activities.push(Activity::Running);
    });
    let mut others_work = with(asleep(Trigger::Edge), |owner| owner.cpu = 0.6);
    others_work.samples = samples(7, false);
    check([
        ("edge", asleep(Trigger::Edge), Cause::Edge),
        ("edge, no connection open", alone(asleep(Trigger::Edge)), Cause::Edge),
        ("edge, and each new connection dequeues a dead one", dequeues_dead, Cause::Edge),
        ("edge, and disarmed in another epoll", two, Cause::Edge),
        ("edge, and the loop serves other connections", others_work, Cause::Edge),
        ("edge, and another thread computes", another_computes, Cause::Edge),
        ("level in an edge-triggered epoll", nested(asleep(Trigger::Level)), Cause::NestedEdge),
        ("exclusive", asleep(Trigger::Exclusive), Cause::Exclusive),
    ]);
}

#[test]
fn runtime_is_never_stranded() {
    let mut dequeues = runtime(asleep(Trigger::Edge));
    dequeues.any_accepted = Some(true);
    let parked = elsewhere(runtime(asleep(Trigger::Edge)), Activity::NonSocketWait);
    check([
        ("at a limit, or its accept loop ended", runtime(asleep(Trigger::Edge)), Cause::NoTaskAccepts),
        ("accept never called", runtime(alone(asleep(Trigger::Edge))), Cause::NoTaskAccepts),
        ("accepts one for each that arrives", dequeues, Cause::NoTaskAccepts),
        ("its threads are parked", parked, Cause::NoTaskAccepts),
        ("a task computes", running(runtime(asleep(Trigger::Edge)), 0.9), Cause::Computes),
    ]);
}

#[test]
fn paused_or_occupied_server_is_at_its_limit() {
    let mut full = asleep(Trigger::Disarmed);
    (full.samples, full.dropped) = (samples(65, true), Some(9));
    let read = Activity::Other("read".into());
    let two = with(unwatched(read.clone()), |owner| (owner.processes, owner.processes_serving) = (2, 2));
    let one_of_two = with(unwatched(read.clone()), |owner| owner.processes = 2);
    check([
        ("mask 0", asleep(Trigger::Disarmed), Cause::Disarmed),
        ("mask 0, queue empty", empty(asleep(Trigger::Disarmed)), Cause::Disarmed),
        ("mask 0, and it overflows", full, Cause::Disarmed),
        ("mask 0, and busy with its connections", running(asleep(Trigger::Disarmed), 0.9), Cause::Disarmed),
        ("one-shot, not rearmed", asleep(Trigger::Fired), Cause::NotRearmed),
        ("deregistered", unwatched(Activity::EpollWait(Some(4))), Cause::WorkersOccupied),
        ("deregistered, queue empty", empty(unwatched(Activity::EpollWait(Some(4)))), Cause::WorkersOccupied),
        ("a blocking worker in a read", unwatched(read.clone()), Cause::WorkersOccupied),
        ("two workers", two.clone(), Cause::WorkersOccupied),
        ("two workers, computing", running(two, 0.9), Cause::WorkersOccupied),
        ("one of two holds a connection", one_of_two, Cause::WorkersOccupied),
        (
            "in an epoll each, serving one each",
            elsewhere(asleep(Trigger::Level), read),
            Cause::WorkersOccupied,
        ),
    ]);
}

#[test]
fn exhaustion_takes_precedence() {
    let exhausted = |facts| with(facts, |owner| owner.fd_table = Some(FdTable { used: 8, limit: 8 }));
    let low = with(arriving(asleep(Trigger::Level)), |owner| {
        owner.fd_table = Some(FdTable { used: 49, limit: 50 });
    });
    let low = clients(low, |clients| (clients.new_closed, clients.open) = (9, 30));
    let mut machine = asleep(Trigger::Edge);
    machine.system_files = Some(FdTable { used: 5, limit: 5 });
    let spins = counted(running(asleep(Trigger::Level), 0.9), 90_000.0, 0.0);
    check([
        ("spinning on EMFILE", exhausted(spins), Cause::DescriptorTable),
        ("stranded by EMFILE", exhausted(asleep(Trigger::Edge)), Cause::DescriptorTable),
        ("paused because of EMFILE", exhausted(asleep(Trigger::Disarmed)), Cause::DescriptorTable),
        (
            "accepts as descriptors become free",
            exhausted(taking(asleep(Trigger::Level))),
            Cause::DescriptorTable,
        ),
        ("no free file in the system", machine, Cause::FileTable),
        ("closes each that arrives with its last one", low, Cause::ClosesWithoutDescriptor),
        ("queue empty", exhausted(empty(asleep(Trigger::Level))), Cause::DescriptorTable),
        (
            "closes each that arrives",
            exhausted(arriving(asleep(Trigger::Level))),
            Cause::ClosesWithoutDescriptor,
        ),
    ]);
}

#[test]
fn spinning_only_if_waits_were_counted() {
    let level = running(asleep(Trigger::Level), 0.95);
    let edge_elsewhere = elsewhere(running(asleep(Trigger::Edge), 0.95), Activity::Running);
    check([
        ("waits return at once", counted(level.clone(), 90_000.0, 10.0), Cause::WaitsReturn),
        (
            "in no epoll: poll returns at once",
            counted(running(unwatched(Activity::Poll), 0.9), 90_000.0, 0.0),
            Cause::WaitsReturn,
        ),
        ("mostly other calls", counted(level.clone(), 900.0, 0.0), Cause::Computes),
        ("each wait sleeps", counted(level.clone(), 90_000.0, 89_990.0), Cause::Computes),
        ("not counted", level, Cause::Computes),
        ("hardly any processor time", running(asleep(Trigger::Level), 0.02), Cause::Computes),
        ("edge, blocked by a computation", edge_elsewhere, Cause::Computes),
        (
            "mask 0: other events",
            counted(running(asleep(Trigger::Disarmed), 0.9), 90_000.0, 0.0),
            Cause::Disarmed,
        ),
    ]);
}

#[test]
fn accepting_server_is_judged_by_what_it_serves() {
    let read =
        clients(arriving(asleep(Trigger::Level)), |clients| (clients.new_open, clients.new_read) = (2, 1));
    let woke = clients(empty(asleep(Trigger::Level)), |clients| clients.may_have_arrived = true);
    let closed = clients(arriving(asleep(Trigger::Level)), |clients| clients.new_closed = 9);
    let unread =
        |facts, unread, open| clients(facts, |clients| (clients.unread, clients.open) = (unread, open));
    let mut slow = taking(asleep(Trigger::Level));
    slow.accept_rate = Some(2.0);
    let mut old = taking(asleep(Trigger::Level));
    old.oldest_wait = Some(Duration::from_secs(5));
    let mut dropping = taking(asleep(Trigger::Level));
    (dropping.dropped, dropping.overflows, dropping.samples[3].queued) = (Some(1), Some(1), 40);
    let mut stray = dropping.clone();
    stray.overflows = Some(0);
    let mut full = taking(asleep(Trigger::Level));
    full.samples = samples(65, false);
    let computing = |facts: &Facts| with(facts.clone(), |owner| owner.cpu = 0.9);
    let (full_busy, dropping_busy) = (computing(&full), computing(&dropping));
    let mut slow_edge = with(asleep(Trigger::Edge), |owner| owner.works_in_calls = true);
    (slow_edge.any_accepted, slow_edge.accept_rate) = (Some(true), Some(20.0));
    let busy = with(empty(asleep(Trigger::Level)), |owner| owner.cpu = 0.9);
    check([
        ("nothing arrived", empty(asleep(Trigger::Level)), Cause::NothingArrived),
        ("nothing seen, and it woke often", woke, Cause::TooShortToSee),
        ("nothing arrived, edge", empty(asleep(Trigger::Edge)), Cause::NothingArrived),
        ("nothing arrived, in accept", empty(unwatched(Activity::Accept(Some(3)))), Cause::NothingArrived),
        ("polls periodically, queue empty", empty(unwatched(Activity::NonSocketWait)), Cause::NothingArrived),
        ("arrived and read", read.clone(), Cause::Serving),
        ("arrived and closed", closed, Cause::ClosesAtOnce),
        ("arrived", arriving(asleep(Trigger::Level)), Cause::Taking),
        ("never empty, fast", taking(asleep(Trigger::Edge)), Cause::Taking),
        ("accepts slowly, by blocking calls", slow_edge, Cause::Taking),
        ("falls behind by its rate", slow, Cause::FallsBehind),
        ("falls behind by its age", old, Cause::FallsBehind),
        ("drops some", dropping, Cause::Dropping),
        ("drops segments that are no connections", stray, Cause::Taking),
        ("full at times", full, Cause::QueueFull),
        ("full, and it computes", full_busy, Cause::FullWhileBusy),
        ("drops some, and it computes", dropping_busy, Cause::FullWhileBusy),
        ("3 of 100 with unread data", unread(read.clone(), 3, 100), Cause::Unread),
        ("1 of 2 with unread data", unread(read.clone(), 1, 2), Cause::Unread),
        ("1 of 3 with unread data", unread(read, 1, 3), Cause::Serving),
        ("unread, and it computes", unread(busy, 1, 1), Cause::Computes),
        ("owner hidden", hidden(empty(asleep(Trigger::Edge))), Cause::NothingArrived),
        ("owner hidden, accepting", hidden(taking(asleep(Trigger::Edge))), Cause::Taking),
    ]);
}

#[test]
fn unregistered_listener_is_not_accepting() {
    let futex = || alone(unwatched(Activity::NonSocketWait));
    let sibling = with(futex(), |owner| owner.sibling_watched = true);
    let busy_sibling = with(running(futex(), 0.9), |owner| owner.sibling_watched = true);
    let epoll = alone(unwatched(Activity::EpollWait(Some(4))));
    check([
        ("never watched", futex(), Cause::Unwatched),
        ("blocked in poll throughout", alone(unwatched(Activity::Poll)), Cause::Unwatched),
        ("never watched, queue empty", empty(epoll), Cause::Unwatched),
        ("a member beside one that is watched", sibling, Cause::UnwatchedMember),
        ("likewise, with a busy owner", busy_sibling, Cause::UnwatchedMember),
        ("blocked in poll, queue empty", empty(alone(unwatched(Activity::Poll))), Cause::NothingArrived),
        ("one-shot, fired, no connection left", alone(asleep(Trigger::Fired)), Cause::Forgotten),
        ("mask 0, no connection left", alone(asleep(Trigger::Disarmed)), Cause::NotResumed),
    ]);
}

#[test]
fn blocked_or_stopped_owner_is_named() {
    let read = Activity::Other("read".into());
    let worker = clients(empty(asleep(Trigger::Level)), |clients| clients.unread = 1);
    let worker = with(worker, |owner| (owner.stopped, owner.processes) = (vec![9], 2));
    check([
        ("level, in a read", elsewhere(alone(asleep(Trigger::Level)), read.clone()), Cause::Blocked),
        (
            "edge, in a timer",
            elsewhere(alone(asleep(Trigger::Edge)), Activity::NonSocketWait),
            Cause::Blocked,
        ),
        ("computes, in no epoll", running(alone(unwatched(Activity::Running)), 0.9), Cause::Computes),
        ("one-shot, fired, and computes", running(asleep(Trigger::Fired), 0.9), Cause::Computes),
        ("stopped", stopped(asleep(Trigger::Edge)), Cause::Stopped),
        ("stopped, and mask 0", stopped(asleep(Trigger::Disarmed)), Cause::Stopped),
        ("stopped, and nothing arrived", stopped(empty(asleep(Trigger::Level))), Cause::Stopped),
        ("one of two is stopped", worker, Cause::WorkerStopped),
    ]);
}

#[test]
fn hidden_facts_are_undetermined() {
    let elsewhere = Facts { all_processes_visible: true, ..hidden(asleep(Trigger::Edge)) };
    check([
        ("owner hidden", hidden(asleep(Trigger::Edge)), Cause::OwnerHidden),
        ("no owner, and nothing hidden", elsewhere, Cause::OwnerElsewhere),
        ("level, asleep in that epoll", asleep(Trigger::Level), Cause::Contradiction),
        ("closed before the first sample", Facts::default(), Cause::NothingSeen),
    ]);
}

#[test]
fn every_sign_is_used_and_every_verdict_has_a_rule() {
    let used: HashSet<Sign> =
        RULES.iter().flat_map(|rule| rule.needs.iter().chain(rule.excludes)).copied().collect();
    let unused: Vec<_> = Sign::ALL.iter().filter(|sign| !used.contains(sign)).collect();
    assert!(unused.is_empty(), "{unused:?}");
    for verdict in Verdict::ALL {
        assert!(RULES.iter().any(|rule| rule.verdict() == verdict), "{verdict:?}");
    }
}

#[test]
fn no_rule_is_shadowed_by_an_earlier_one() {
    for (number, rule) in RULES.iter().enumerate() {
        let mut signs = Signs::default();
        rule.needs.iter().for_each(|sign| signs.set(*sign, true));
        signs.set(Owner, !rule.excludes.contains(&Owner));
        let first = RULES.iter().position(|other| other.holds(signs));
        assert_eq!(first, Some(number), "{rule:?} is never reached");
    }
}

#[test]
fn every_rule_names_a_command_and_its_doubt() {
    for rule in RULES {
        assert!(!rule.cause.next().is_empty(), "{:?}", rule.cause);
        let is_sure = rule.confidence == Confidence::High;
        assert!(is_sure || !rule.cause.otherwise().is_empty(), "{:?}: what else can it be?", rule.cause);
    }
}

#[test]
fn exit_statuses_are_distinct() {
    let statuses: HashSet<u8> = Verdict::ALL.iter().map(|verdict| verdict.exit_status()).collect();
    assert_eq!(statuses.len(), Verdict::ALL.len());
    // 1, 2 and 3 are general errors.
    assert!(Verdict::ALL.iter().all(|verdict| !(1..=3).contains(&verdict.exit_status())));
    let fault = |verdict: &Verdict| verdict.exit_status() >= 10;
    let faultless = Verdict::ALL.iter().filter(|verdict| !fault(verdict)).copied().collect::<Vec<_>>();
    assert_eq!(faultless, [Verdict::Healthy, Verdict::Idle, Verdict::Accepting]);
}

#[test]
fn idle_is_less_certain_while_a_thread_computes() {
    let idle = empty(asleep(Trigger::Level));
    assert_eq!(diagnose(&idle).confidence, Confidence::High);
    let computes = with(idle, |owner| owner.cpu = 0.9);
    let diagnosis = diagnose(&computes);
    assert_eq!((diagnosis.cause, diagnosis.confidence), (Cause::NothingArrived, Confidence::Low));
}
