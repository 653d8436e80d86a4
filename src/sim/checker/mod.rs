//! The checker of a run: follows every connection, permit, attempt, wakeup and command, and keeps the first promise
//! that was broken.

mod expected;
pub(super) mod peers;
mod refusals;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

pub(super) use self::expected::GateModel;
use self::expected::{Expected, PassStats};
use self::peers::PeerChecker;
use self::refusals::AllowedCauses;
use super::script::{Action, Setup};
use crate::admission::refusal::Rejection;
use crate::drain::counters::Counters;
use crate::drain::errno::{Errno, ErrnoClass};
use crate::drain::trigger::EmptyCheck;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name: `P1` to `P14`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

/// The maximum first back-off after a success.
const BACKOFF_FIRST_MAX: Duration = Duration::from_millis(10);

/// No back-off may be shorter: a retry loop without delay is a spin.
const BACKOFF_MIN: Duration = Duration::from_millis(1);

/// Within this time an acceptor may run out twice: the second time by a retry for a permit released since the first.
const SHORTAGES_APART: Duration = Duration::from_millis(5);

/// This number of transient errors in a row is treated as a shortage.
const PATIENCE: u32 = 64;

/// Follows a run.
#[derive(Default)]
pub(super) struct Checker {
    /// The rules about peers and queue times.
    pub(super) peers: PeerChecker,
    pub(super) accounts: Vec<Expected>,
    /// Connections that clients made.
    pub(super) arrived: u64,
    /// Those of them that are queued and not reported yet.
    pub(super) unreported: u32,
    pub(super) stolen: u64,
    pub(super) aborted: u64,
    /// Listeners that were shut down.
    pub(super) shut_down: BTreeSet<usize>,
    /// An accept was made to fail as on a closed listener.
    pub(super) fatal_injected: bool,
    taken: u64,
    closed: u64,
    pub(super) gates: Vec<GateModel>,
    /// Tokens of the rate that are used up.
    pub(super) tokens: u64,
    /// The most permits that were released while one acceptor waited.
    pub(super) passed_over_most: u32,
    pub(super) now: Duration,
    /// Something happened that excuses an accept on an empty queue.
    disturbed: bool,
    /// A call besides accept was made to fail.
    calls_failed: bool,
    violation: Option<Violation>,
}

impl Checker {
    pub(super) fn violate(&mut self, promise: &'static str, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { promise, what: what.into() });
    }

    pub(super) fn add_account(&mut self, setup: &Setup) {
        let accepts_until_eagain = setup.empty_check == Some(EmptyCheck::UntilEagain);
        let gate = self.accounts.len() % setup.gates();
        let allowed_causes = AllowedCauses::of(setup);
        let budget = setup.budget;
        self.accounts.push(Expected {
            budget,
            gate,
            accepts_until_eagain,
            allowed_causes,
            ..Expected::default()
        });
    }

    pub(super) fn gate_of(&self, acceptor: usize) -> usize {
        self.accounts[acceptor].gate
    }

    pub(super) fn gate_model_of(&self, acceptor: usize) -> GateModel {
        self.gates[self.gate_of(acceptor)]
    }

    /// How many permits are in use, of all gates.
    pub(super) fn permits(&self) -> u32 {
        self.gates.iter().map(|gate| gate.in_use).sum()
    }

    /// The owner of an acceptor has dropped it; these were its counters.
    pub(super) fn on_drop(&mut self, acceptor: usize, counters: Option<&Counters>) {
        if let Some(counters) = counters {
            self.audit(acceptor, counters);
        }
        let account = &mut self.accounts[acceptor];
        account.gone = true;
        account.alarm = None;
    }

    pub(super) fn on_action(&mut self, act: Action) {
        // Clients that connect or leave, and released permits, never make a correct acceptor call accept on an empty
        // queue. All other actions may.
        self.disturbed |=
            !matches!(act, Action::Connect(_) | Action::Quit(_) | Action::Reset(_) | Action::Free);
        // These actions raise an event, or may empty the queue: an acceptor that failed before may retry.
        if let Action::Connect(_) | Action::Insert(_) | Action::Tell(_) | Action::Steal(_) | Action::Shut(_) =
            act
        {
            self.excuse();
        }
    }

    /// An acceptor that ran out may retry.
    pub(super) fn excuse(&mut self) {
        for account in &mut self.accounts {
            (account.exhausted, account.shortages) = (false, [None; 2]);
        }
    }

    pub(super) fn on_command(&mut self, acceptor: usize, act: Action) {
        let Some(account) = self.accounts.get_mut(acceptor) else { return };
        let was_silent = account.paused || account.stopped;
        match act {
            Action::Pause(_) => account.paused = true,
            // A resume makes it retry.
            Action::Resume(_) => (account.paused, account.shortages) = (false, [None; 2]),
            _ => account.stopped = true,
        }
        if !was_silent {
            account.since_command = 0;
        }
    }

    pub(super) fn on_wait(&mut self, acceptor: usize, events: usize) {
        self.accounts[acceptor].waits_with_events += u64::from(events > 0);
    }

    pub(super) fn wakes(&self) -> u64 {
        self.accounts.iter().map(|account| account.waits_with_events).sum()
    }

    /// `is_open`: a pass that was left open goes on.
    pub(super) fn on_pass_begin(&mut self, acceptor: usize, is_open: bool) {
        if is_open {
            return;
        }
        let account = &mut self.accounts[acceptor];
        account.in_pass = Some(0);
        account.pass = PassStats { began: self.now, ..PassStats::default() };
        if std::mem::take(&mut account.woken) {
            account.exhausted = false;
        }
    }

    /// `is_open`: the pass goes on with the next call.
    pub(super) fn on_pass_end(&mut self, acceptor: usize, listener: usize, closed: bool, is_open: bool) {
        let account = &mut self.accounts[acceptor];
        account.in_pass = account.in_pass.filter(|_| is_open);
        account.closed_reports += u32::from(closed);
        if account.closed_reports > 1 {
            self.violate("P7", format!("acceptor {acceptor} reported twice that its listener is closed"));
        }
        if closed && !self.shut_down.contains(&listener) && !self.fatal_injected {
            self.violate("P7", format!("acceptor {acceptor} gave up a listener that listens"));
        }
    }

    pub(super) fn on_wake(&mut self, acceptor: usize) {
        self.accounts[acceptor].woken = true;
        self.accounts[acceptor].enqueued = false;
    }

    /// A lower limit takes granted permits back: the count begins again.
    pub(super) fn on_limit_changed(&mut self, gate: usize, limit: u32) {
        self.gates[gate].limit = limit;
        for account in &mut self.accounts {
            (account.passed_over, account.shortages) = (0, [None; 2]);
        }
    }

    /// An acceptor joins or leaves the wait queue for a permit. One that joins again keeps its turn.
    pub(super) fn set_enqueued(&mut self, acceptor: usize, enqueued: bool) {
        self.accounts[acceptor].enqueued = enqueued;
        if !enqueued {
            self.accounts[acceptor].passed_over = 0;
        }
    }

    pub(super) fn on_registered(&mut self, acceptor: usize, registered: bool) {
        self.accounts[acceptor].removed = !registered;
    }

    /// An accept is about to be called.
    pub(super) fn on_attempt(&mut self, acceptor: usize) {
        let account = &mut self.accounts[acceptor];
        account.attempts += 1;
        if account.paused || account.stopped {
            account.since_command += 1;
            if account.since_command > 1 {
                self.violate("P9", format!("acceptor {acceptor} goes on after it was told to pause or stop"));
                return;
            }
        }
        if account.exhausted {
            self.violate(
                "P2",
                format!("acceptor {acceptor} ran out of descriptors or memory and retries at once"),
            );
            return;
        }
        let Some(in_pass) = &mut account.in_pass else { return };
        *in_pass += 1;
        let (made, budget) = (*in_pass, account.budget);
        if made > budget {
            self.violate(
                "P6",
                format!("acceptor {acceptor} made {made} attempts in a pass, budget {budget}"),
            );
        }
        if self.accounts[acceptor].is_closed() {
            self.violate(
                "P7",
                format!("acceptor {acceptor} called accept after it reported a closed listener"),
            );
        }
    }

    /// A connection was accepted; returns its number.
    pub(super) fn on_accept(&mut self) -> u64 {
        self.taken += 1;
        self.taken
    }

    /// An accept failed; `queued` is how many connections it left behind.
    pub(super) fn on_failure(&mut self, acceptor: usize, errno: Errno, queued: u32) {
        match errno.class() {
            ErrnoClass::Consumed => {
                self.aborted += 1;
                self.accounts[acceptor].on_transient_error();
            }
            ErrnoClass::Interrupted => self.accounts[acceptor].on_transient_error(),
            ErrnoClass::Resource => {
                let account = &mut self.accounts[acceptor];
                account.exhausted = queued > 0;
                account.pass.exhausted += 1;
                // The retry with the reserve descriptor in the same pass fails as well.
                if queued > 0 && account.pass.exhausted == 1 {
                    let [last, before] = account.shortages;
                    account.shortages = [Some(self.now), last];
                    if before.is_some_and(|before| self.now - before < SHORTAGES_APART) {
                        let what = format!("acceptor {acceptor} ran out three times within 5 ms");
                        self.violate("P2", what);
                    }
                }
            }
            ErrnoClass::Empty => {
                self.accounts[acceptor].empty += 1;
                if !self.disturbed
                    && self.accounts.len() == 1
                    && !self.accounts[acceptor].accepts_until_eagain
                {
                    self.violate("P14", format!("acceptor {acceptor} called accept on an empty queue"));
                }
            }
            ErrnoClass::Fatal => {}
        }
    }

    pub(super) fn on_delivery(&mut self, acceptor: usize, serial: u64) {
        let account = &mut self.accounts[acceptor];
        account.delivered += 1;
        let rejected = std::mem::take(&mut account.rejected);
        account.futile = 0;
        account.backoffs = 0;
        account.shortages = [None; 2];
        let in_order = serial > std::mem::replace(&mut account.last_serial, serial);
        if rejected {
            self.violate(
                "P5",
                format!("acceptor {acceptor} delivered connection {serial}, which was rejected"),
            );
        }
        if !in_order {
            self.violate("P12", format!("acceptor {acceptor} delivered connection {serial} out of order"));
        }
    }

    pub(super) fn on_close(&mut self, serial: u64, settled: bool) {
        self.closed += 1;
        if !settled {
            self.violate(
                "P5",
                format!("connection {serial} was accepted, and neither delivered nor refused"),
            );
        }
    }

    /// How many accepted connections are open.
    pub(super) fn open(&self) -> u64 {
        self.taken - self.closed
    }

    pub(super) fn on_permit_taken(&mut self, gate: usize) {
        let model = &mut self.gates[gate];
        model.in_use += 1;
        let GateModel { limit, in_use, .. } = *model;
        if in_use > limit {
            self.violate("P3", format!("{in_use} permits are in use, limit {limit}"));
        }
    }

    pub(super) fn on_permit_returned(&mut self, gate: usize) {
        let model = &mut self.gates[gate];
        match model.in_use.checked_sub(1) {
            Some(left) => model.in_use = left,
            None => self.violate("P4", "a permit was released that was not in use"),
        }
    }

    /// The number of a gate's permits in use has changed; it includes those kept for a waiter. `unused`: one was
    /// cancelled.
    pub(super) fn on_permits_in_use(&mut self, gate: usize, in_use: u32, unused: bool) {
        let places = &mut self.gates[gate];
        let free = places.limit.saturating_sub(in_use);
        let is_down = unused || free >= places.low_water || in_use == 0;
        places.was_full = free == 0 || (places.was_full && !is_down);
    }

    /// A release made a permit available: the wait queue moves on by one.
    pub(super) fn on_queue_moves(&mut self, gate: usize) {
        let low_water = self.gates[gate].low_water as usize;
        let line: Vec<usize> =
            (0..self.accounts.len()).filter(|acceptor| self.gate_of(*acceptor) == gate).collect();
        for acceptor in &line {
            let account = &mut self.accounts[*acceptor];
            account.passed_over += u32::from(account.enqueued && !account.paused && !account.stopped);
            let passed_over = account.passed_over;
            self.passed_over_most = self.passed_over_most.max(passed_over);
            // Until `low_water` permits are free, the queue does not move.
            if passed_over as usize >= line.len() + low_water.max(1) {
                let what = format!("acceptor {acceptor} waits for a permit, and {passed_over} were released");
                self.violate("P11", what);
            }
        }
    }

    pub(super) fn on_alarm(&mut self, acceptor: usize, after: Option<Duration>) {
        let at = after.map(|after| self.now.saturating_add(after));
        let account = &mut self.accounts[acceptor];
        let before = std::mem::replace(&mut account.alarm, at);
        let (Some(after), Some(at)) = (after, at) else { return };
        if self.calls_failed {
            return;
        }
        account.pass.alarms += 1;
        let futile = std::mem::take(&mut account.futile);
        account.backoffs += u32::from(before.is_none());
        // An alarm that replaces another is not a new back-off.
        let too_long = before.is_none() && account.backoffs == 1 && after > BACKOFF_FIRST_MAX;
        let PassStats { began, exhausted, transient, alarms } = account.pass;
        let throttled = account.throttled.take().map(|wait| wait.max(BACKOFF_MIN));
        let held_back = account.allowed_causes.rate.is_some();
        // Time may pass between reading the clock and setting the alarm.
        let grace = self.now.saturating_sub(began);
        if alarms > 1 {
            self.violate("P9", format!("acceptor {acceptor} set its alarm {alarms} times in one pass"));
        } else if before.is_some_and(|before| before + grace < at) {
            self.violate("P9", format!("acceptor {acceptor} postponed an alarm that was set"));
        } else if exhausted > 0 && after < BACKOFF_MIN {
            self.violate("P2", format!("acceptor {acceptor} backs off for {after:?}"));
        } else if let Some(wait) = throttled {
            if after != wait && exhausted == 0 && !held_back {
                let what = format!(
                    "acceptor {acceptor} was asked to retry after {wait:?}, and sets its alarm for {after:?}"
                );
                self.violate("P2", what);
            }
        } else if too_long && !held_back {
            self.violate("P7", format!("acceptor {acceptor} backs off for {after:?} right after a success"));
        } else if exhausted == 0 && transient > 0 && before.is_none() && futile < PATIENCE && !held_back {
            self.violate("P7", format!("acceptor {acceptor} backs off, and nothing was exhausted"));
        }
    }

    pub(super) fn is_alarm_pending(&self, acceptor: usize) -> bool {
        self.accounts[acceptor].alarm.is_some()
    }

    /// A call failed because the script made it fail: the acceptor reacts as it does to a shortage.
    pub(super) fn on_failed_call(&mut self) {
        (self.calls_failed, self.disturbed) = (true, true);
        self.excuse();
    }

    /// A filter answered whether the connection that an acceptor accepted last is admitted. Returns its number, if the
    /// policy counts by peer.
    pub(super) fn on_answer(&mut self, acceptor: usize, answer: &Result<(), Rejection>) -> Option<u64> {
        match answer {
            Ok(()) => self.peers.on_admitted(acceptor, self.now),
            Err(rejection) => {
                self.accounts[acceptor].rejected = true;
                self.peers.on_rejected(acceptor, self.now, rejection);
                None
            }
        }
    }

    /// The first promise that was broken.
    pub(super) fn violation(&mut self) -> Option<Violation> {
        let peers = self.peers.violation();
        self.violation.clone().or(peers)
    }

    pub(super) fn pass_time(&mut self, by: Duration) {
        self.now += by;
        for account in &mut self.accounts {
            account.alarm = account.alarm.filter(|at| *at > self.now);
            account.exhausted = false;
        }
    }

    /// How long it takes until the next alarm expires.
    pub(super) fn next_alarm(&self) -> Option<Duration> {
        self.accounts.iter().filter_map(|account| account.alarm).min().map(|at| at - self.now)
    }

    /// No connection may be lost; `queued` are those that are pending at the end.
    pub(super) fn check_arrivals(&mut self, queued: u64) {
        let gone = self.taken + self.aborted + self.stolen;
        if self.shut_down.is_empty() && self.arrived != gone + queued {
            let what = format!("{} arrived, {gone} were accepted or lost, {queued} are queued", self.arrived);
            self.violate("P10", what);
        }
    }

    /// Compares the acceptor's own counters with its calls.
    pub(super) fn audit(&mut self, acceptor: usize, counters: &Counters) {
        let account = &self.accounts[acceptor];
        let seen = (account.attempts, account.delivered, account.refused, account.empty);
        let told = (counters.attempts, counters.delivered, counters.refused, counters.empty);
        if seen != told || !counters.is_balanced() {
            let what = format!("acceptor {acceptor} (attempts, delivered, refused, empty): {seen:?}");
            self.violate("P8", format!("{what} and not {told:?}: {counters}"));
        } else if !account.allowed_causes.allow(counters) {
            self.violate(
                "P5",
                format!("acceptor {acceptor} refused connections that could wait: {counters}"),
            );
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}
