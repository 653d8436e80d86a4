//! Emulated epolls that differ from the kernel's in one rule, and registrations that use a rule wrongly, on the simulated
//! kernel. What differs from an emulated epoll is explained: this crate has none.

use epoll_acceptor::sim::kernel::AfterReport;
use epoll_acceptor::sim::kernel::{Family, Fd, Kernel, Linux, Mask, Rules, Sleep, Thread};

use super::controls;
use crate::search::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    vec![
        Mutant::of_part::<OneEdgeEach>(
            &["S37"],
            "an edge per arrival",
            || edge_for_each_arrival(Linux),
            || edge_for_each_arrival(OneEdgeEach),
        )
        .explained(),
        Mutant::of_part::<OneShotStays>(
            &["M42"],
            "one event per shot",
            || silent_after_one_shot(Linux).and_then(|()| controls::silent_after_one_shot()),
            || silent_after_one_shot(OneShotStays),
        ),
        Mutant::of_part::<AddLooksAway>(
            &["M56"],
            "`ADD` reports readiness",
            || reports_earlier_arrivals(Linux).and_then(|()| controls::reports_earlier_arrivals()),
            || reports_earlier_arrivals(AddLooksAway),
        ),
        Mutant::of_part::<ClosesOnly>(
            &["M43"],
            "no event after close",
            || no_event_after_close(true).and_then(|()| controls::no_event_after_the_end()),
            || no_event_after_close(false),
        ),
        Mutant::of_part::<AllWake>(
            &["M54"],
            "one wakeup per client",
            || one_wakes(Mask::IN | Mask::EXCLUSIVE),
            || one_wakes(Mask::IN),
        )
        .explained(),
    ]
}

/// A registration reports the first edge only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OneEdgeEach;

impl Rules for OneEdgeEach {
    fn after_report(_: Mask) -> AfterReport {
        AfterReport::Disarm
    }
}

/// A one-shot registration that is level-triggered stays level-triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OneShotStays;

impl Rules for OneShotStays {
    fn after_report(mask: Mask) -> AfterReport {
        if mask.contains(Mask::ET) { AfterReport::Leave } else { AfterReport::Requeue }
    }
}

/// Registering ignores connections that are queued already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AddLooksAway;

impl Rules for AddLooksAway {
    fn add_polls() -> bool {
        false
    }
}

/// Closes one of two descriptors of a listener, and takes its registration for gone.
struct ClosesOnly;

/// Several epolls on one listener, none of them exclusive.
struct AllWake;

fn listening<R: Rules>(rules: R, mask: Mask) -> (Kernel<R>, Fd, Fd) {
    let mut kernel = Kernel::with_rules(rules);
    let (listener, epoll) = (kernel.listener(Family::Tcp4, 16).unwrap(), kernel.epoll().unwrap());
    kernel.add(epoll, listener, mask, 7).unwrap();
    (kernel, listener, epoll)
}

fn connect<R: Rules>(kernel: &mut Kernel<R>, listener: Fd) {
    let address = kernel.address(listener).unwrap();
    kernel.connect(address).unwrap();
}

fn events<R: Rules>(kernel: &mut Kernel<R>, epoll: Fd) -> usize {
    kernel.wait(epoll, 8).unwrap().len()
}

fn edge_for_each_arrival<R: Rules>(rules: R) -> Result<(), String> {
    let (mut kernel, listener, epoll) = listening(rules, Mask::IN | Mask::ET);
    for arrival in 1..3 {
        connect(&mut kernel, listener);
        if events(&mut kernel, epoll) != 1 {
            return Err(format!("Connect, Wait, Accept, {arrival} times: no event the last time"));
        }
        kernel.accept(listener).unwrap();
    }
    Ok(())
}

fn silent_after_one_shot<R: Rules>(rules: R) -> Result<(), String> {
    let (mut kernel, listener, epoll) = listening(rules, Mask::IN | Mask::ONESHOT);
    connect(&mut kernel, listener);
    assert_eq!(events(&mut kernel, epoll), 1);
    connect(&mut kernel, listener);
    if events(&mut kernel, epoll) == 0 {
        Ok(())
    } else {
        Err("Connect, Wait, Connect, Wait: two events".into())
    }
}

fn reports_earlier_arrivals<R: Rules>(rules: R) -> Result<(), String> {
    let mut kernel = Kernel::with_rules(rules);
    let (listener, epoll) = (kernel.listener(Family::Tcp4, 16).unwrap(), kernel.epoll().unwrap());
    connect(&mut kernel, listener);
    kernel.add(epoll, listener, Mask::IN | Mask::ET, 7).unwrap();
    if events(&mut kernel, epoll) == 1 { Ok(()) } else { Err("Connect, Add, Wait: no event".into()) }
}

fn no_event_after_close(deletes: bool) -> Result<(), String> {
    let (mut kernel, listener, epoll) = listening(Linux, Mask::IN);
    let copy = kernel.dup(listener).unwrap();
    if deletes {
        kernel.delete(epoll, listener).unwrap();
    }
    kernel.close(listener).unwrap();
    connect(&mut kernel, copy);
    match events(&mut kernel, epoll) {
        0 => Ok(()),
        _ => Err("Dup, Close, Connect, Wait: an event of the closed descriptor".into()),
    }
}

fn one_wakes(mask: Mask) -> Result<(), String> {
    let mut kernel = Kernel::new();
    let listener = kernel.listener(Family::Tcp4, 16).unwrap();
    for thread in 0..4 {
        let epoll = kernel.epoll().unwrap();
        kernel.add(epoll, listener, mask, 7).unwrap();
        assert_eq!(kernel.sleep(epoll, Thread(thread), 8, None), Ok(Sleep::Asleep));
    }
    connect(&mut kernel, listener);
    match kernel.runnable().count() {
        1 => Ok(()),
        woken => Err(format!("4 blocked, Connect: {woken} wake")),
    }
}
