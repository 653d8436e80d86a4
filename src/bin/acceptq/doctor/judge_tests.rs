//! A table of facts, and the verdict on each.

use super::*;
use crate::doctor::facts::Sample;
use crate::see::owners::Table;

const LOOKS: usize = 20;

fn samples(queued: u32, asleep: bool) -> Vec<Sample> {
    vec![Sample { queued, asleep: Some(asleep) }; LOOKS]
}

/// Seven wait, nothing is taken, the owner sleeps in epoll 4, which watches the listener in this way.
fn asleep(how: How) -> Facts {
    let watch = Watch { how, within_edge: false, awaited: Some(true) };
    Facts {
        samples: samples(7, true),
        capacity: 65,
        dropped: Some(0),
        taken: Some(false),
        owner: Some(Owner {
            watches: vec![watch],
            doing: vec![Doing::EpollWait(Some(4))],
            table: Some(Table { used: 10, limit: 1024 }),
            accepted_alive: 1,
            ..Owner::default()
        }),
        all_seen: false,
        machine: Some(Table { used: 1000, limit: 100_000 }),
    }
}

/// The same in no epoll.
fn unwatched() -> Facts {
    with(asleep(How::Level), |owner| owner.watches.clear())
}

fn with(mut facts: Facts, change: impl FnOnce(&mut Owner)) -> Facts {
    change(facts.owner.as_mut().expect("an owner"));
    facts
}

fn running(facts: Facts, cpu: f64, cpu_system: f64) -> Facts {
    let mut facts = with(facts, |owner| {
        (owner.cpu, owner.cpu_system, owner.never_asleep) = (cpu, cpu_system, true);
        owner.doing = vec![Doing::Running];
        owner.watches.iter_mut().for_each(|watch| watch.awaited = None);
    });
    facts.samples = samples(7, false);
    facts
}

fn empty(mut facts: Facts) -> Facts {
    facts.samples = samples(0, true);
    facts
}

fn taking(mut facts: Facts) -> Facts {
    facts.taken = Some(true);
    facts.samples = samples(7, false);
    facts
}

fn hidden(mut facts: Facts) -> Facts {
    facts.owner = None;
    facts
}

fn check(table: impl IntoIterator<Item = (&'static str, Facts, Cause)>) {
    for (what, facts, cause) in table {
        assert_eq!(judge(&facts), cause, "{what}: {facts:#?}");
    }
}

#[test]
fn asleep_on_a_queue_is_stranded_if_it_may_miss() {
    let nested = |facts| with(facts, |owner| owner.watches[0].within_edge = true);
    let alone = |facts| with(facts, |owner| owner.accepted_alive = 0);
    let mut newcomers = asleep(How::Edge);
    newcomers.taken = Some(true);
    let two = with(asleep(How::Edge), |owner| {
        owner.watches.push(Watch { how: How::Silenced, within_edge: false, awaited: Some(true) });
    });
    let another_computes = with(asleep(How::Edge), |owner| {
        (owner.cpu, owner.never_asleep) = (0.99, true);
        owner.doing.push(Doing::Running);
    });
    let others_work = with(asleep(How::Edge), |owner| (owner.cpu, owner.cpu_system) = (0.6, 0.3));
    check([
        ("edge", asleep(How::Edge), Cause::Edge),
        ("edge, and each newcomer frees one of the dead", newcomers, Cause::Edge),
        ("edge, and silenced in another epoll", two, Cause::Edge),
        ("edge, and the loop serves others meanwhile", others_work, Cause::Edge),
        ("edge, and another thread computes", another_computes, Cause::Edge),
        ("level within an edge", nested(asleep(How::Level)), Cause::NestedEdge),
        ("exclusive", asleep(How::Exclusive), Cause::Exclusive),
        ("one-shot, fired, with nobody left", alone(asleep(How::Fired)), Cause::Forgotten),
        ("mask 0, with nobody left", alone(asleep(How::Silenced)), Cause::NotResumed),
    ]);
}

#[test]
fn a_queue_that_is_left_on_purpose_is_backpressure() {
    let full = |mut facts: Facts| {
        facts.samples = samples(65, true);
        facts.dropped = Some(9);
        facts
    };
    let nobody_left = with(asleep(How::Silenced), |owner| owner.accepted_alive = 0);
    let elsewhere =
        |how| with(asleep(how), |owner| (owner.accepted_alive, owner.accepted_elsewhere) = (0, true));
    let leaving = Facts { samples: samples(7, false), ..nobody_left.clone() };
    check([
        ("mask 0", asleep(How::Silenced), Cause::Silenced),
        ("mask 0, nobody waits yet", empty(asleep(How::Silenced)), Cause::Silenced),
        ("mask 0, and it overflows", full(asleep(How::Silenced)), Cause::Silenced),
        ("mask 0, the last one is just leaving", leaving, Cause::Silenced),
        ("mask 0, and others serve what it has accepted", elsewhere(How::Silenced), Cause::Silenced),
        ("fired, and others serve what it has accepted", elsewhere(How::Fired), Cause::NotRearmed),
        ("mask 0, with nobody left, and nobody waits", empty(nobody_left), Cause::Silenced),
        ("deregistered, and serves those it has", unwatched(), Cause::Deregistered),
        ("deregistered, nobody waits yet", empty(unwatched()), Cause::Deregistered),
        ("one-shot, not armed again, and serves those it has", asleep(How::Fired), Cause::NotRearmed),
    ]);
}

#[test]
fn no_descriptor_explains_the_most() {
    let exhausted = |facts| with(facts, |owner| owner.table = Some(Table { used: 8, limit: 8 }));
    let mut machine = asleep(How::Edge);
    machine.machine = Some(Table { used: 5, limit: 5 });
    check([
        ("spinning on EMFILE", exhausted(running(asleep(How::Level), 0.9, 0.8)), Cause::DescriptorTable),
        ("stranded by EMFILE", exhausted(asleep(How::Edge)), Cause::DescriptorTable),
        ("paused because of EMFILE", exhausted(asleep(How::Silenced)), Cause::DescriptorTable),
        ("removed because of EMFILE", exhausted(unwatched()), Cause::DescriptorTable),
        ("no file in the machine", machine, Cause::FileTable),
        ("no descriptor, but nobody waits", exhausted(empty(asleep(How::Level))), Cause::Drained),
    ]);
}

#[test]
fn a_thread_that_never_sleeps_spins_or_computes() {
    let restless = with(asleep(How::Level), |owner| {
        (owner.sleeps_per_second, owner.watches[0].awaited) = (90.0, Some(false));
        owner.doing = vec![Doing::Aside];
    });
    check([
        ("level, all in the kernel", running(asleep(How::Level), 0.95, 0.7), Cause::NeverSleeps),
        (
            "level, a sixth of a processor is left for it",
            running(asleep(How::Level), 0.16, 0.1),
            Cause::NeverSleeps,
        ),
        (
            "level, next to nothing is left for it",
            running(asleep(How::Level), 0.02, 0.01),
            Cause::NeverSleeps,
        ),
        ("level, all outside the kernel", running(asleep(How::Level), 0.95, 0.01), Cause::Busy),
        ("edge", running(asleep(How::Edge), 0.95, 0.7), Cause::Busy),
        ("level, with a rest each time", restless, Cause::Restless),
        ("poll, all in the kernel", running(unwatched(), 0.95, 0.7), Cause::NeverSleeps),
        ("mask 0, and busy with others", running(asleep(How::Silenced), 0.95, 0.7), Cause::Silenced),
    ]);
}

#[test]
fn what_takes_is_well_unless_it_drops() {
    let mut dropping = taking(asleep(How::Level));
    dropping.dropped = Some(1);
    let mut full = taking(asleep(How::Level));
    full.samples = samples(65, false);
    let mut ebbing = running(asleep(How::Level), 0.9, 0.5);
    ebbing.samples[3].queued = 0;
    let mut slow = with(asleep(How::Edge), |owner| owner.works_in_calls = true);
    slow.taken = Some(true);
    let accepts =
        with(unwatched(), |owner| (owner.accepts, owner.doing) = (true, vec![Doing::Accept(Some(3))]));
    let serving = with(unwatched(), |owner| owner.doing = vec![Doing::Other("read".into())]);
    check([
        ("level, nobody waits", empty(asleep(How::Level)), Cause::Drained),
        ("edge, nobody waits", empty(asleep(How::Edge)), Cause::Drained),
        ("one-shot, at work", empty(asleep(How::Fired)), Cause::Drained),
        ("edge, busy", taking(asleep(How::Edge)), Cause::Taking),
        ("edge, takes them slowly, by blocking calls", slow, Cause::Taking),
        ("empty once", ebbing, Cause::Drained),
        ("blocked in accept", empty(accepts), Cause::Drained),
        ("serves one at a time", empty(serving), Cause::Drained),
        ("drops some", dropping, Cause::Dropping),
        ("full at times", full, Cause::Full),
        ("owner hidden, nobody waits", hidden(empty(asleep(How::Edge))), Cause::Drained),
        ("owner hidden, taking", hidden(taking(asleep(How::Edge))), Cause::Taking),
    ]);
}

#[test]
fn nobody_polls_what_is_in_no_epoll() {
    let alone = with(unwatched(), |owner| owner.accepted_alive = 0);
    let sibling = with(unwatched(), |owner| owner.sibling_watched = true);
    let busy_sibling = with(running(unwatched(), 0.9, 0.7), |owner| owner.sibling_watched = true);
    let in_poll = with(alone.clone(), |owner| owner.doing = vec![Doing::Poll]);
    let naps = with(alone.clone(), |owner| owner.doing = vec![Doing::Aside]);
    check([
        ("never watched", alone.clone(), Cause::Unwatched),
        ("never watched, nobody waits yet", empty(alone), Cause::Unwatched),
        ("a member beside one that is watched", sibling, Cause::UnwatchedMember),
        ("the same, its owner busy", busy_sibling, Cause::UnwatchedMember),
        // A poll that had the listener in its set would return.
        ("asleep in a poll all the time", in_poll.clone(), Cause::Unwatched),
        ("asleep in a poll, nobody waits", empty(in_poll), Cause::Drained),
        ("accepts every so often, nobody waits", empty(naps), Cause::Drained),
    ]);
}

#[test]
fn held_up_in_something_else_is_stuck() {
    let elsewhere = |facts, doing| {
        with(facts, |owner| {
            owner.watches.iter_mut().for_each(|watch| watch.awaited = Some(false));
            owner.doing = vec![doing];
        })
    };
    let stopped = |how| with(asleep(how), |owner| owner.doing = vec![Doing::Stopped]);
    check([
        ("edge, in a timer", elsewhere(asleep(How::Edge), Doing::Aside), Cause::Elsewhere),
        ("level, in a read", elsewhere(asleep(How::Level), Doing::Other("read".into())), Cause::Elsewhere),
        ("accepts by blocking calls", elsewhere(unwatched(), Doing::Other("read".into())), Cause::HeldUp),
        ("stopped", stopped(How::Edge), Cause::Stopped),
        ("stopped, and mask 0", stopped(How::Silenced), Cause::Stopped),
        ("one-shot, fired, and computes", running(asleep(How::Fired), 0.9, 0.0), Cause::Busy),
    ]);
}

#[test]
fn what_cannot_be_seen_is_not_guessed() {
    let gone = Facts::default();
    let elsewhere = Facts { all_seen: true, ..hidden(asleep(How::Edge)) };
    check([
        ("owner hidden", hidden(asleep(How::Edge)), Cause::OwnerHidden),
        ("no owner, and nothing hidden", elsewhere, Cause::OwnerElsewhere),
        ("level, asleep in that epoll", asleep(How::Level), Cause::Contradiction),
        ("gone before the first look", gone, Cause::NothingSeen),
    ]);
}

#[test]
fn every_verdict_has_its_own_exit_status() {
    let statuses: std::collections::HashSet<u8> =
        Verdict::ALL.iter().map(|verdict| verdict.exit_status()).collect();
    assert_eq!(statuses.len(), Verdict::ALL.len());
    // 1, 2 and 3 mean something else.
    assert!(Verdict::ALL.iter().all(|verdict| !(1..=3).contains(&verdict.exit_status())));
    assert_eq!(Verdict::Healthy.exit_status(), 0);
}
