//! The cause derived from each combination of facts.

use super::*;
use crate::doctor::facts::Sample;
use crate::probe::owners::FdTable;

const SAMPLES: usize = 20;

fn samples(queued: u32, asleep: bool) -> Vec<Sample> {
    vec![Sample { queued, asleep: Some(asleep) }; SAMPLES]
}

/// Seven connections wait, none is accepted, and the owner sleeps in epoll 4 with this trigger.
fn asleep(trigger: Trigger) -> Facts {
    let registration = RegistrationFacts { trigger, within_edge: false, awaited: Some(true) };
    Facts {
        samples: samples(7, true),
        capacity: 65,
        dropped: Some(0),
        any_accepted: Some(false),
        owner: Some(Owner {
            registrations: vec![registration],
            activities: vec![Activity::EpollWait(Some(4))],
            fd_table: Some(FdTable { used: 10, limit: 1024 }),
            accepted_alive: 1,
            ..Owner::default()
        }),
        all_processes_visible: false,
        system_files: Some(FdTable { used: 1000, limit: 100_000 }),
    }
}

/// Likewise, but in no epoll.
fn unwatched() -> Facts {
    with(asleep(Trigger::Level), |owner| owner.registrations.clear())
}

fn with(mut facts: Facts, change: impl FnOnce(&mut Owner)) -> Facts {
    change(facts.owner.as_mut().expect("an owner"));
    facts
}

fn running(facts: Facts, cpu: f64, cpu_system: f64) -> Facts {
    let mut facts = with(facts, |owner| {
        (owner.cpu, owner.cpu_system, owner.never_asleep) = (cpu, cpu_system, true);
        owner.activities = vec![Activity::Running];
        owner.registrations.iter_mut().for_each(|registration| registration.awaited = None);
    });
    facts.samples = samples(7, false);
    facts
}

fn empty(mut facts: Facts) -> Facts {
    facts.samples = samples(0, true);
    facts
}

fn taking(mut facts: Facts) -> Facts {
    facts.any_accepted = Some(true);
    facts.samples = samples(7, false);
    facts
}

fn hidden(mut facts: Facts) -> Facts {
    facts.owner = None;
    facts
}

fn check(table: impl IntoIterator<Item = (&'static str, Facts, Cause)>) {
    for (what, facts, cause) in table {
        assert_eq!(diagnose(&facts), cause, "{what}: {facts:#?}");
    }
}

#[test]
fn sleeping_owner_with_lossy_trigger_is_stranded() {
    let nested = |facts| with(facts, |owner| owner.registrations[0].within_edge = true);
    let alone = |facts| with(facts, |owner| owner.accepted_alive = 0);
    let mut dequeues_dead = asleep(Trigger::Edge);
    dequeues_dead.any_accepted = Some(true);
    let two = with(asleep(Trigger::Edge), |owner| {
        owner.registrations.push(RegistrationFacts {
            trigger: Trigger::Disarmed,
            within_edge: false,
            awaited: Some(true),
        });
    });
    let another_computes = with(asleep(Trigger::Edge), |owner| {
        (owner.cpu, owner.never_asleep) = (0.99, true);
        owner.activities.push(Activity::Running);
    });
    let others_work = with(asleep(Trigger::Edge), |owner| (owner.cpu, owner.cpu_system) = (0.6, 0.3));
    check([
        ("edge", asleep(Trigger::Edge), Cause::Edge),
        ("edge, and each new connection dequeues a dead one", dequeues_dead, Cause::Edge),
        ("edge, and disarmed in another epoll", two, Cause::Edge),
        ("edge, and the loop serves other connections", others_work, Cause::Edge),
        ("edge, and another thread computes", another_computes, Cause::Edge),
        ("level in an edge-triggered epoll", nested(asleep(Trigger::Level)), Cause::NestedEdge),
        ("exclusive", asleep(Trigger::Exclusive), Cause::Exclusive),
        ("one-shot, fired, no connection left", alone(asleep(Trigger::Fired)), Cause::Forgotten),
        ("mask 0, no connection left", alone(asleep(Trigger::Disarmed)), Cause::NotResumed),
    ]);
}

#[test]
fn paused_server_is_backpressure() {
    let full = |mut facts: Facts| {
        facts.samples = samples(65, true);
        facts.dropped = Some(9);
        facts
    };
    let all_closed = with(asleep(Trigger::Disarmed), |owner| owner.accepted_alive = 0);
    let elsewhere =
        |trigger| with(asleep(trigger), |owner| (owner.accepted_alive, owner.accepted_elsewhere) = (0, true));
    let leaving = Facts { samples: samples(7, false), ..all_closed.clone() };
    check([
        ("mask 0", asleep(Trigger::Disarmed), Cause::Disarmed),
        ("mask 0, queue empty", empty(asleep(Trigger::Disarmed)), Cause::Disarmed),
        ("mask 0, and it overflows", full(asleep(Trigger::Disarmed)), Cause::Disarmed),
        ("mask 0, the last connection is closing", leaving, Cause::Disarmed),
        ("mask 0, and other processes have its connections", elsewhere(Trigger::Disarmed), Cause::Disarmed),
        ("fired, and other processes have its connections", elsewhere(Trigger::Fired), Cause::NotRearmed),
        ("mask 0, no connection left, queue empty", empty(all_closed), Cause::Disarmed),
        ("deregistered, and has connections", unwatched(), Cause::Deregistered),
        ("deregistered, queue empty", empty(unwatched()), Cause::Deregistered),
        ("one-shot, not rearmed, and has connections", asleep(Trigger::Fired), Cause::NotRearmed),
    ]);
}

#[test]
fn exhaustion_takes_precedence() {
    let exhausted = |facts| with(facts, |owner| owner.fd_table = Some(FdTable { used: 8, limit: 8 }));
    let mut machine = asleep(Trigger::Edge);
    machine.system_files = Some(FdTable { used: 5, limit: 5 });
    check([
        ("spinning on EMFILE", exhausted(running(asleep(Trigger::Level), 0.9, 0.8)), Cause::DescriptorTable),
        ("stranded by EMFILE", exhausted(asleep(Trigger::Edge)), Cause::DescriptorTable),
        ("paused because of EMFILE", exhausted(asleep(Trigger::Disarmed)), Cause::DescriptorTable),
        ("removed because of EMFILE", exhausted(unwatched()), Cause::DescriptorTable),
        ("no free file in the system", machine, Cause::FileTable),
        ("no descriptor, but the queue is empty", exhausted(empty(asleep(Trigger::Level))), Cause::Drained),
    ]);
}

#[test]
fn running_thread_spins_or_computes() {
    let restless = with(asleep(Trigger::Level), |owner| {
        (owner.sleeps_per_second, owner.registrations[0].awaited) = (90.0, Some(false));
        owner.activities = vec![Activity::NonSocketWait];
    });
    check([
        ("level, mostly in the kernel", running(asleep(Trigger::Level), 0.95, 0.7), Cause::NeverSleeps),
        (
            "level, gets a sixth of a processor",
            running(asleep(Trigger::Level), 0.16, 0.1),
            Cause::NeverSleeps,
        ),
        (
            "level, gets hardly any processor time",
            running(asleep(Trigger::Level), 0.02, 0.01),
            Cause::NeverSleeps,
        ),
        ("level, mostly in user mode", running(asleep(Trigger::Level), 0.95, 0.01), Cause::Busy),
        ("edge", running(asleep(Trigger::Edge), 0.95, 0.7), Cause::Busy),
        ("level, sleeps briefly each time", restless, Cause::Restless),
        ("poll, mostly in the kernel", running(unwatched(), 0.95, 0.7), Cause::NeverSleeps),
        (
            "mask 0, and busy with other connections",
            running(asleep(Trigger::Disarmed), 0.95, 0.7),
            Cause::Disarmed,
        ),
    ]);
}

#[test]
fn accepting_server_is_healthy_unless_it_drops() {
    let mut dropping = taking(asleep(Trigger::Level));
    dropping.dropped = Some(1);
    let mut full = taking(asleep(Trigger::Level));
    full.samples = samples(65, false);
    let mut ebbing = running(asleep(Trigger::Level), 0.9, 0.5);
    ebbing.samples[3].queued = 0;
    let mut slow = with(asleep(Trigger::Edge), |owner| owner.works_in_calls = true);
    slow.any_accepted = Some(true);
    let accepts = with(unwatched(), |owner| {
        (owner.accepts, owner.activities) = (true, vec![Activity::Accept(Some(3))]);
    });
    let serving = with(unwatched(), |owner| owner.activities = vec![Activity::Other("read".into())]);
    check([
        ("level, queue empty", empty(asleep(Trigger::Level)), Cause::Drained),
        ("edge, queue empty", empty(asleep(Trigger::Edge)), Cause::Drained),
        ("one-shot, working", empty(asleep(Trigger::Fired)), Cause::Drained),
        ("edge, busy", taking(asleep(Trigger::Edge)), Cause::Taking),
        ("edge, accepts slowly, by blocking calls", slow, Cause::Taking),
        ("empty once", ebbing, Cause::Drained),
        ("blocked in accept", empty(accepts), Cause::Drained),
        ("serves one connection at a time", empty(serving), Cause::Drained),
        ("drops some", dropping, Cause::Dropping),
        ("full at times", full, Cause::Full),
        ("owner hidden, queue empty", hidden(empty(asleep(Trigger::Edge))), Cause::Drained),
        ("owner hidden, accepting", hidden(taking(asleep(Trigger::Edge))), Cause::Taking),
    ]);
}

#[test]
fn unregistered_listener_is_not_polled() {
    let alone = with(unwatched(), |owner| owner.accepted_alive = 0);
    let sibling = with(unwatched(), |owner| owner.sibling_watched = true);
    let busy_sibling = with(running(unwatched(), 0.9, 0.7), |owner| owner.sibling_watched = true);
    let in_poll = with(alone.clone(), |owner| owner.activities = vec![Activity::Poll]);
    let naps = with(alone.clone(), |owner| owner.activities = vec![Activity::NonSocketWait]);
    check([
        ("never watched", alone.clone(), Cause::Unwatched),
        ("never watched, queue empty", empty(alone), Cause::Unwatched),
        ("a member beside one that is watched", sibling, Cause::UnwatchedMember),
        ("likewise, with a busy owner", busy_sibling, Cause::UnwatchedMember),
        // A poll on the listener would return.
        ("blocked in poll throughout", in_poll.clone(), Cause::Unwatched),
        ("blocked in poll, queue empty", empty(in_poll), Cause::Drained),
        ("accepts periodically, queue empty", empty(naps), Cause::Drained),
    ]);
}

#[test]
fn blocked_owner_is_stuck() {
    let elsewhere = |facts, activity| {
        with(facts, |owner| {
            owner.registrations.iter_mut().for_each(|registration| registration.awaited = Some(false));
            owner.activities = vec![activity];
        })
    };
    let stopped = |trigger| with(asleep(trigger), |owner| owner.activities = vec![Activity::Stopped]);
    check([
        ("edge, in a timer", elsewhere(asleep(Trigger::Edge), Activity::NonSocketWait), Cause::Elsewhere),
        (
            "level, in a read",
            elsewhere(asleep(Trigger::Level), Activity::Other("read".into())),
            Cause::Elsewhere,
        ),
        ("accepts by blocking calls", elsewhere(unwatched(), Activity::Other("read".into())), Cause::HeldUp),
        ("stopped", stopped(Trigger::Edge), Cause::Stopped),
        ("stopped, and mask 0", stopped(Trigger::Disarmed), Cause::Stopped),
        ("one-shot, fired, and computes", running(asleep(Trigger::Fired), 0.9, 0.0), Cause::Busy),
    ]);
}

#[test]
fn hidden_facts_are_undetermined() {
    let gone = Facts::default();
    let elsewhere = Facts { all_processes_visible: true, ..hidden(asleep(Trigger::Edge)) };
    check([
        ("owner hidden", hidden(asleep(Trigger::Edge)), Cause::OwnerHidden),
        ("no owner, and nothing hidden", elsewhere, Cause::OwnerElsewhere),
        ("level, asleep in that epoll", asleep(Trigger::Level), Cause::Contradiction),
        ("closed before the first sample", gone, Cause::NothingSeen),
    ]);
}

#[test]
fn exit_statuses_are_distinct() {
    let statuses: std::collections::HashSet<u8> =
        Verdict::ALL.iter().map(|verdict| verdict.exit_status()).collect();
    assert_eq!(statuses.len(), Verdict::ALL.len());
    // 1, 2 and 3 are general errors.
    assert!(Verdict::ALL.iter().all(|verdict| !(1..=3).contains(&verdict.exit_status())));
    assert_eq!(Verdict::Healthy.exit_status(), 0);
}
