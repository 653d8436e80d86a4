//! Mutation test of the comparison: it must notice each wrong rule in the model.
//!
//! The kernel runs once. Its recorded results are compared with those of each faulty model.

use std::collections::VecDeque;

use epoll_acceptor::sim::kernel::{AfterReport, Family, Fd, Linux, Mask, Rules, Shut, Thread};
use epoll_acceptor::socket::Errno;

use crate::parity::play::{self, Coverage, Record};
use crate::parity::random::compare_random;
use crate::parity::real::is_supported;
use crate::parity::running::Running;
use crate::parity::sleepers::{self, SleepersRecord, compare_sleepers};
use crate::report;

/// Defines faulty rules, each by its name and the one function it gets wrong.
macro_rules! faults {
    ($($name:ident: $rule:item)*) => {
        $(
            #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
            struct $name;

            impl Rules for $name {
                $rule
            }
        )*

        #[test]
        fn every_model_fault_is_caught() {
            let recordings = Recordings::collect();
            assert!(!recordings.rejects(Running), "the correct rules are rejected");
            let verdicts = [$((stringify!($name), recordings.rejects($name))),*];
            let escaped: Vec<_> = verdicts.iter().filter(|(_, caught)| !caught).collect();
            let (all, caught) = (verdicts.len(), verdicts.len() - escaped.len());
            report(&format!("parity: {caught} of {all} model faults caught"));
            // Without MPTCP on this machine its faults cannot show, nor a wrong key without a key.
            let excused = |name: &str| match name {
                "MptcpShutdownKeyIsErr" if Running::mptcp_shutdown_key().is_none() => true,
                _ => name.starts_with("Mptcp") && !is_supported(Family::Mptcp),
            };
            assert!(escaped.iter().all(|(name, _)| excused(name)), "not caught: {escaped:?}");
        }
    };
}

faults! {
    ArrivalKeyIsIn: fn arrival_key() -> Mask { Mask::IN }
    ArrivalKeyHasOut: fn arrival_key() -> Mask { Linux::arrival_key() | Mask::OUT }
    WakeupsIgnoreMasks: fn matches_key(mask: Mask, _key: Mask) -> bool { mask.intersects(!Mask::PRIVATE) }
    KeylessWakeupsAreIgnored: fn matches_key(mask: Mask, key: Mask) -> bool { key.intersects(mask & !Mask::PRIVATE) }
    EventsAreNotPolledAgain: fn reported(_shown: Mask, mask: Mask) -> Mask { mask & Mask::IN }
    LevelIsEdge: fn after_report(mask: Mask) -> AfterReport {
        if mask.contains(Mask::ONESHOT) { AfterReport::Disarm } else { AfterReport::Leave }
    }
    EdgeIsLevel: fn after_report(mask: Mask) -> AfterReport {
        if mask.contains(Mask::ONESHOT) { AfterReport::Disarm } else { AfterReport::Requeue }
    }
    OneShotIsEdge: fn after_report(mask: Mask) -> AfterReport {
        if mask.intersects(Mask::ET | Mask::ONESHOT) { AfterReport::Leave } else { AfterReport::Requeue }
    }
    LeftOversComeLast: fn after_scan<T>(left_over: VecDeque<T>, mut put_back: VecDeque<T>) -> VecDeque<T> {
        put_back.extend(left_over);
        put_back
    }
    ArrivalsAreNotCoalesced: fn links(_linked: bool) -> bool { true }
    AddDoesNotPoll: fn add_polls() -> bool { false }
    ModifyDoesNotPoll: fn modify_polls(_mask: Mask) -> bool { false }
    ModifyDoesNotRearmEdge: fn modify_polls(mask: Mask) -> bool { !mask.contains(Mask::ET) }
    MaskZeroImpliesNothing: fn implied() -> Mask { Mask::empty() }
    HangUpIsNotImplied: fn implied() -> Mask { Mask::ERR }
    FileAloneIsIdentity: fn identity(_fd: Fd) -> Fd { Fd(0) }
    AnyCloseDeregisters: fn close_deregisters(_last: bool) -> bool { true }
    ExclusiveAllowsOneShot: fn exclusive_allows() -> Mask { Linux::exclusive_allows() | Mask::ONESHOT }
    ExclusiveForbidsEdge: fn exclusive_allows() -> Mask { Linux::exclusive_allows() - Mask::ET }
    ExclusiveCanBeModified: fn modifiable(_mask: Mask) -> bool { true }
    NoNesting: fn nesting_max() -> usize { 0 }
    OuterIsWokenOncePerLink: fn calls_outer(newly_linked: bool) -> bool { newly_linked }
    OuterIsNotWoken: fn calls_outer(_newly_linked: bool) -> bool { false }
    WakeupIsFifo: fn wake_one(sleepers: &mut VecDeque<Thread>) -> Option<Thread> { sleepers.pop_back() }
    NoThreadWakes: fn wake_one(_sleepers: &mut VecDeque<Thread>) -> Option<Thread> { None }
    ScanDoesNotWakeNext: fn scan_wakes_next() -> bool { false }
    SignalsBeatEvents: fn interrupts(_events: usize) -> bool { true }
    SignalsDoNotInterrupt: fn interrupts(_events: usize) -> bool { false }
    OldestRegistrationFirst: fn queue_position(_exclusive: bool, registered: usize) -> usize { registered }
    ExclusiveFirst: fn queue_position(_exclusive: bool, _registered: usize) -> usize { 0 }
    ExclusiveConsumesWithoutSleeper: fn exclusive_consumes_wakeup(_mask: Mask, _key: Mask, _sleeper: bool) -> bool { true }
    ExclusiveNeverConsumes: fn exclusive_consumes_wakeup(_mask: Mask, _key: Mask, _sleeper: bool) -> bool { false }
    ShutdownKeyIsIn: fn shutdown_key() -> Mask { Mask::IN }
    MptcpShutdownKeyIsErr: fn mptcp_shutdown_key() -> Option<Mask> { Some(Mask::ERR) }
    ShutdownWakesOneExclusive: fn shutdown_exclusive_max() -> usize { 1 }
    ShutWrDoesNotWake: fn shutdown_notifies(how: Shut) -> bool { how.contains(Shut::RD) }
    ShutdownDoesNotWake: fn shutdown_notifies(_how: Shut) -> bool { false }
    ShutWrCloses: fn shutdown_closes(family: Family, _how: Shut) -> bool { family != Family::Unix }
    ShutRdClosesUnix: fn shutdown_closes(_family: Family, how: Shut) -> bool { how.contains(Shut::RD) }
    NothingIsInherited: fn inherited_shutdown(_family: Family, _shut: Shut) -> Shut { Shut::empty() }
    MptcpInherits: fn inherited_shutdown(family: Family, shut: Shut) -> Shut {
        if family == Family::Unix { Shut::empty() } else { shut }
    }
    CapacityIsBacklog: fn capacity(backlog: u32) -> usize { backlog.max(1) as usize }
    NegativeBacklogIsZero: fn backlog(requested: i32) -> u32 { requested.max(0).unsigned_abs() }
    ShutUnixAcceptsClients: fn refuses(_family: Family, _shut: Shut) -> bool { false }
    ListenEmptiesQueue: fn relisten_keeps_queue() -> bool { false }
    NewestIsAccepted: fn dequeue<T>(queue: &mut VecDeque<T>) -> Option<T> { queue.pop_back() }
    ClosedClientsLeaveQueue: fn stays_queued() -> bool { false }
    ResetIsReadRepeatedly: fn reset_is_read_once() -> bool { false }
    ResetIsReadAfterEnd: fn fin_hides_reset() -> bool { false }
    ShutUnixAcceptIsInvalid: fn empty_accept_error(family: Family, listening: bool, shut: Shut) -> Errno {
        let shut_unix = family == Family::Unix && shut.contains(Shut::RD);
        Linux::empty_accept_error(family, listening && !shut_unix, shut)
    }
    ClosedListenerIsEmpty: fn empty_accept_error(_family: Family, _listening: bool, _shut: Shut) -> Errno {
        Errno::new(libc::EAGAIN)
    }
    EmptyQueueBeforeFullTable: fn descriptor_checked_first() -> bool { false }
    NotificationKeyIsPri: fn notification_key() -> Mask { Mask::PRI }
}

/// Sequences with the results of the kernel.
struct Recordings {
    records: Vec<Record>,
    sleepers: Vec<SleepersRecord>,
}

impl Recordings {
    fn collect() -> Self {
        let (mut records, mut sleepers) = (Vec::new(), Vec::new());
        compare_random(100_000, 2, &mut Coverage::default(), |record| records.push(record));
        // Another thread, because `Fixture::new` unshares the descriptor table of its thread.
        let collect =
            || compare_sleepers(15_000, 2, &mut Coverage::default(), |record| sleepers.push(record));
        std::thread::scope(|scope| scope.spawn(collect).join().unwrap());
        Self { records, sleepers }
    }

    fn rejects<R: Rules>(&self, rules: R) -> bool {
        let differs =
            |record: &Record| !record.outcomes.starts_with(&play::on_model(rules, record.setup, &record.ops));
        let sleepers_differ = |record: &SleepersRecord| {
            !record.outcomes.starts_with(&sleepers::on_model(rules, record.setup, &record.steps))
        };
        self.records.iter().any(differs) || self.sleepers.iter().any(sleepers_differ)
    }
}
