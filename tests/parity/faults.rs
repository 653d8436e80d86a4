//! The reverse check: each rule of the model told wrongly, one at a time, must be noticed by the comparison.
//!
//! The kernel plays once; what it answered is then held against every faulty model.

use std::collections::VecDeque;

use epoll_acceptor::Errno;
use epoll_acceptor::sim::kernel::{AfterReport, Family, Fd, Linux, Mask, Rules, Shut, Thread};

use crate::play::{self, Record, Tally};
use crate::random::compare_random;
use crate::real::is_here;
use crate::say;
use crate::sleepers::{self, SleepersRecord, compare_sleepers};

/// A faulty kernel a line: its name, and the one rule it gets wrong.
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
        fn every_fault_in_the_model_is_caught() {
            let evidence = Evidence::gather();
            assert!(!evidence.convicts(Linux), "the true rules are convicted");
            let verdicts = [$((stringify!($name), evidence.convicts($name))),*];
            let escaped: Vec<_> = verdicts.iter().filter(|(_, caught)| !caught).collect();
            let (all, caught) = (verdicts.len(), verdicts.len() - escaped.len());
            say(&format!("parity: {caught} of {all} model faults caught"));
            // Where there is no MPTCP nobody can notice what is wrong with it.
            let excused = |name: &str| name.starts_with("Mptcp") && !is_here(Family::Mptcp);
            assert!(escaped.iter().all(|(name, _)| excused(name)), "nobody noticed {escaped:?}");
        }
    };
}

faults! {
    ArrivalsSayOnlyIn: fn arrival_key() -> Mask { Mask::IN }
    ArrivalsSayOutAsWell: fn arrival_key() -> Mask { Linux::arrival_key() | Mask::OUT }
    CallsIgnoreMasks: fn hears(mask: Mask, _key: Mask) -> bool { mask.intersects(!Mask::PRIVATE) }
    KeylessCallsAreNotHeard: fn hears(mask: Mask, key: Mask) -> bool { key.intersects(mask & !Mask::PRIVATE) }
    EventsAreNotLookedAtAgain: fn reported(_shown: Mask, mask: Mask) -> Mask { mask & Mask::IN }
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
    AddDoesNotLook: fn add_looks() -> bool { false }
    ModifyDoesNotLook: fn modify_looks(_mask: Mask) -> bool { false }
    ModifyDoesNotRearmEdges: fn modify_looks(mask: Mask) -> bool { !mask.contains(Mask::ET) }
    MaskZeroIsDeaf: fn implied() -> Mask { Mask::empty() }
    HangUpIsNotImplied: fn implied() -> Mask { Mask::ERR }
    FileAloneIsIdentity: fn identity(_fd: Fd) -> Fd { Fd(0) }
    AnyCloseDeregisters: fn close_forgets(_last: bool) -> bool { true }
    ExclusiveGoesWithOneShot: fn exclusive_allows() -> Mask { Linux::exclusive_allows() | Mask::ONESHOT }
    ExclusiveDoesNotGoWithEdge: fn exclusive_allows() -> Mask { Linux::exclusive_allows() - Mask::ET }
    ExclusiveCanBeModified: fn modifiable(_mask: Mask) -> bool { true }
    NoNesting: fn nesting_max() -> usize { 0 }
    OuterIsCalledOncePerLink: fn outer_called(newly_linked: bool) -> bool { newly_linked }
    OuterIsNotCalled: fn outer_called(_newly_linked: bool) -> bool { false }
    FirstToSleepWakes: fn wakes(sleepers: &mut VecDeque<Thread>) -> Option<Thread> { sleepers.pop_back() }
    NobodyWakes: fn wakes(_sleepers: &mut VecDeque<Thread>) -> Option<Thread> { None }
    ScansWakeNobody: fn scan_wakes_next() -> bool { false }
    SignalsBeatEvents: fn interrupts(_events: usize) -> bool { true }
    SignalsDoNotInterrupt: fn interrupts(_events: usize) -> bool { false }
    OldestRegistrationFirst: fn place(_exclusive: bool, registered: usize) -> usize { registered }
    ExclusiveOnesFirst: fn place(_exclusive: bool, _registered: usize) -> usize { 0 }
    ExclusiveTakesWithoutSleeper: fn exclusive_takes(_mask: Mask, _key: Mask, _sleeper: bool) -> bool { true }
    ExclusiveNeverTakes: fn exclusive_takes(_mask: Mask, _key: Mask, _sleeper: bool) -> bool { false }
    ShutdownSaysIn: fn shutdown_key() -> Mask { Mask::IN }
    MptcpShutdownSaysNothingFirst: fn mptcp_shutdown_key() -> Mask { Mask::ERR }
    ShutdownWakesOneExclusive: fn shutdown_wakes() -> usize { 1 }
    ShutForWritingIsSilent: fn shutdown_tells(how: Shut) -> bool { how.contains(Shut::RD) }
    ShutdownIsSilent: fn shutdown_tells(_how: Shut) -> bool { false }
    ShutForWritingEnds: fn shutdown_ends(family: Family, _how: Shut) -> bool { family != Family::Unix }
    ShutdownEndsUnix: fn shutdown_ends(_family: Family, how: Shut) -> bool { how.contains(Shut::RD) }
    NothingIsInherited: fn from_env(_family: Family, _shut: Shut) -> Shut { Shut::empty() }
    MptcpInherits: fn from_env(family: Family, shut: Shut) -> Shut {
        if family == Family::Unix { Shut::empty() } else { shut }
    }
    CapacityIsBacklog: fn capacity(backlog: u32) -> usize { backlog.max(1) as usize }
    NegativeBacklogIsZero: fn backlog(asked: i32) -> u32 { asked.max(0).unsigned_abs() }
    ShutUnixListensOn: fn refuses(_family: Family, _shut: Shut) -> bool { false }
    ListenEmptiesQueue: fn relisten_keeps_queue() -> bool { false }
    NewestIsAccepted: fn dequeue<T>(queue: &mut VecDeque<T>) -> Option<T> { queue.pop_back() }
    QuittersLeaveTheQueue: fn stays_queued() -> bool { false }
    ResetIsReadForEver: fn reset_is_read_once() -> bool { false }
    ResetIsReadAfterEnd: fn end_hides_reset() -> bool { false }
    ShutUnixAcceptIsInvalid: fn nothing_to_accept(family: Family, listening: bool, shut: Shut) -> Errno {
        let shut_unix = family == Family::Unix && shut.contains(Shut::RD);
        Linux::nothing_to_accept(family, listening && !shut_unix, shut)
    }
    ClosedListenerIsEmpty: fn nothing_to_accept(_family: Family, _listening: bool, _shut: Shut) -> Errno {
        Errno::new(libc::EAGAIN)
    }
    EmptyQueueBeforeFullTable: fn descriptor_comes_first() -> bool { false }
    RingsSayNothing: fn bell_key() -> Mask { Mask::PRI }
}

/// What the kernel did.
struct Evidence {
    records: Vec<Record>,
    of_sleepers: Vec<SleepersRecord>,
}

impl Evidence {
    fn gather() -> Self {
        let (mut records, mut of_sleepers) = (Vec::new(), Vec::new());
        compare_random(100_000, 2, &mut Tally::default(), |record| records.push(record));
        // Another thread, since each side keeps its descriptor table.
        let gather = || compare_sleepers(15_000, 2, &mut Tally::default(), |record| of_sleepers.push(record));
        std::thread::scope(|scope| scope.spawn(gather).join().unwrap());
        Self { records, of_sleepers }
    }

    fn convicts<R: Rules>(&self, rules: R) -> bool {
        let differs =
            |record: &Record| !record.outcomes.starts_with(&play::on_model(rules, record.setup, &record.ops));
        let differs_asleep = |record: &SleepersRecord| {
            !record.outcomes.starts_with(&sleepers::on_model(rules, record.setup, &record.scenes))
        };
        self.records.iter().any(differs) || self.of_sleepers.iter().any(differs_asleep)
    }
}
