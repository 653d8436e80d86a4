//! The books of one run: every connection, place, attempt, wake-up and command, and the first promise broken.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::refusals::Refuses;
use super::script::{Action, Setup};
use crate::drain::counters::Counters;
use crate::drain::errno::{Errno, ErrnoClass};
use crate::drain::strategy::EmptyCheck;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name: `P1` to `P14`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

/// What one acceptor did, as seen through the seam.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) attempts: u64,
    pub(super) delivered: u64,
    pub(super) refused: u64,
    pub(super) empty: u64,
    waits_with_events: u64,
    in_pass: Option<u32>,
    budget: u32,
    /// The gate it stands before.
    gate: usize,
    /// It accepts until EAGAIN, as it was told to.
    tries_in_vain: bool,
    /// For what causes it may refuse.
    pub(super) refuses: Refuses,
    /// Its policy has not let the connection in that it has in hand.
    pub(super) denied: bool,
    /// Its policy said that it has to wait for so long.
    pub(super) throttled: Option<Duration>,
    last_serial: u64,
    /// How often it has backed off since it last took a connection.
    pub(super) backoffs: u32,
    /// Hitches since it last took a connection or backed off.
    in_vain: u32,
    /// Fallen silent on command: paused until resumed.
    pub(super) paused: bool,
    pub(super) stopped: bool,
    /// Attempts made since it was told to pause or stop: one may have been under way.
    since_command: u32,
    told_dead: u32,
    /// Its owner has dropped it.
    pub(super) gone: bool,
    /// Taken out of its epoll.
    pub(super) detached: bool,
    /// It stands in line for room, and has not been rung since.
    in_line: bool,
    /// Capacity that came back while it stood in line.
    passed_over: u32,
    /// Somebody has rung since its last pass began.
    rung: bool,
    /// It ran out of something with connections queued, and neither time nor a ring nor a client has changed
    /// that.
    pub(super) exhausted: bool,
    /// When it last ran out of something with connections queued, and the time before, with nothing since that excuses it.
    shortages: [Option<Duration>; 2],
    pub(super) pass: PassAccount,
    pub(super) alarm: Option<Duration>,
}

/// The places of one gate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Capacity {
    pub(super) limit: u32,
    pub(super) taken: u32,
    /// Once full, it opens again when so many are free.
    pub(super) low_water: u32,
    /// It was full, and has not come down to the mark. A place that came to nothing was never taken.
    pub(super) was_full: bool,
}

impl Capacity {
    /// Whether there is room for one more.
    pub(super) fn has_room(self) -> bool {
        self.taken < self.limit && (self.low_water <= 1 || !self.was_full)
    }
}

/// What happened in one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PassAccount {
    began: Duration,
    pub(super) exhausted: u32,
    /// Connections lost, interruptions.
    hitches: u32,
    alarms: u32,
}

/// The longest first back-off after a success.
const BACKOFF_FIRST_MAX: Duration = Duration::from_millis(10);

/// No back-off may be shorter: what fails must not be tried without end in no time.
const BACKOFF_MIN: Duration = Duration::from_millis(1);

/// Within this time an acceptor may run out of something twice: by its alarm, and by what was given back since. More often
/// what is given back is of no use to it.
const SHORTAGES_APART: Duration = Duration::from_millis(5);

/// So many hitches in a row are taken for a shortage.
const PATIENCE: u32 = 64;

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) accounts: Vec<Expected>,
    /// Connections that clients made.
    pub(super) arrived: u64,
    /// Of these, at most so many have not been told of.
    pub(super) untold: u32,
    pub(super) stolen: u64,
    pub(super) aborted: u64,
    /// Listeners that were shut down.
    pub(super) shut: BTreeSet<usize>,
    /// An accept was made to fail as on a dead listener.
    pub(super) doomed: bool,
    taken: u64,
    closed: u64,
    pub(super) gates: Vec<Capacity>,
    /// Tokens of the rate that are used up.
    pub(super) tokens: u64,
    /// The most that any account was passed over.
    pub(super) passed_over_most: u32,
    pub(super) now: Duration,
    /// Something happened that makes an accept on an empty queue nobody's fault.
    disturbed: bool,
    pub(super) violation: Option<Violation>,
}

impl Ledger {
    pub(super) fn violate(&mut self, promise: &'static str, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { promise, what: what.into() });
    }

    pub(super) fn add_account(&mut self, case: &Setup) {
        let tries_in_vain = case.proof == Some(EmptyCheck::UntilEagain);
        let gate = self.accounts.len() % case.gates();
        let refuses = Refuses::of(case);
        let budget = case.budget;
        self.accounts.push(Expected { budget, gate, tries_in_vain, refuses, ..Expected::default() });
    }

    /// The gate an acceptor stands before.
    pub(super) fn gate_of(&self, acceptor: usize) -> usize {
        self.accounts[acceptor].gate
    }

    /// The places an acceptor takes its own from.
    pub(super) fn places_of(&self, acceptor: usize) -> Capacity {
        self.gates[self.gate_of(acceptor)]
    }

    /// How many places are out, of all gates.
    pub(super) fn places(&self) -> u32 {
        self.gates.iter().map(|places| places.taken).sum()
    }

    /// Its owner has dropped an acceptor, which said this of itself.
    pub(super) fn goes(&mut self, acceptor: usize, counters: Option<&Counters>) {
        if let Some(counters) = counters {
            self.audit(acceptor, counters);
        }
        let account = &mut self.accounts[acceptor];
        account.gone = true;
        account.alarm = None;
    }

    pub(super) fn acted(&mut self, act: Action) {
        // Clients that come, go or quit never make a good acceptor try in vain. These others may.
        self.disturbed |=
            !matches!(act, Action::Connect(_) | Action::Quit(_) | Action::Reset(_) | Action::Free);
        // An event of its own, or nothing left to wait for: who failed before may try.
        if let Action::Connect(_) | Action::Insert(_) | Action::Tell(_) | Action::Steal(_) | Action::Shut(_) =
            act
        {
            self.excuse();
        }
    }

    /// Who ran out of something may try again.
    pub(super) fn excuse(&mut self) {
        for account in &mut self.accounts {
            (account.exhausted, account.shortages) = (false, [None; 2]);
        }
    }

    pub(super) fn command(&mut self, acceptor: usize, act: Action) {
        let Some(account) = self.accounts.get_mut(acceptor) else { return };
        let was_silent = account.paused || account.stopped;
        match act {
            Action::Pause(_) => account.paused = true,
            // Who resumes it has it try.
            Action::Resume(_) => (account.paused, account.shortages) = (false, [None; 2]),
            _ => account.stopped = true,
        }
        if !was_silent {
            account.since_command = 0;
        }
    }

    pub(super) fn waited(&mut self, acceptor: usize, events: usize) {
        self.accounts[acceptor].waits_with_events += u64::from(events > 0);
    }

    pub(super) fn wakes(&self) -> u64 {
        self.accounts.iter().map(|account| account.waits_with_events).sum()
    }

    pub(super) fn pass_begins(&mut self, acceptor: usize) {
        let account = &mut self.accounts[acceptor];
        account.in_pass = Some(0);
        account.pass = PassAccount { began: self.now, ..PassAccount::default() };
        if std::mem::take(&mut account.rung) {
            account.exhausted = false;
        }
    }

    pub(super) fn pass_ends(&mut self, acceptor: usize, listener: usize, told_dead: bool) {
        let account = &mut self.accounts[acceptor];
        account.in_pass = None;
        account.told_dead += u32::from(told_dead);
        if account.told_dead > 1 {
            self.violate("P7", format!("acceptor {acceptor} told twice that its listener is dead"));
        }
        if told_dead && !self.shut.contains(&listener) && !self.doomed {
            self.violate("P7", format!("acceptor {acceptor} gave up a listener that lives"));
        }
    }

    pub(super) fn rings(&mut self, acceptor: usize) {
        self.accounts[acceptor].rung = true;
        self.accounts[acceptor].in_line = false;
    }

    /// A lower limit takes places back that were handed over: the line begins anew.
    pub(super) fn changes_limit(&mut self, gate: usize, limit: u32) {
        self.gates[gate].limit = limit;
        for account in &mut self.accounts {
            (account.passed_over, account.shortages) = (0, [None; 2]);
        }
    }

    /// Begins or ends to stand in line for room. To stand again is to go on standing.
    pub(super) fn stands(&mut self, acceptor: usize, in_line: bool) {
        self.accounts[acceptor].in_line = in_line;
        if !in_line {
            self.accounts[acceptor].passed_over = 0;
        }
    }

    pub(super) fn registers(&mut self, acceptor: usize, registered: bool) {
        self.accounts[acceptor].detached = !registered;
    }

    /// An accept is about to be made.
    pub(super) fn attempts(&mut self, acceptor: usize) {
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
            self.violate("P2", format!("acceptor {acceptor} ran out of something and tries again at once"));
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
        if self.accounts[acceptor].is_dead() {
            self.violate("P7", format!("acceptor {acceptor} tried to accept after it told that it is dead"));
        }
    }

    /// A connection was taken; its number.
    pub(super) fn takes(&mut self) -> u64 {
        self.taken += 1;
        self.taken
    }

    /// An accept failed; `queued` is how many connections it left behind.
    pub(super) fn fails(&mut self, acceptor: usize, errno: Errno, queued: u32) {
        match errno.class() {
            ErrnoClass::Consumed => {
                self.aborted += 1;
                self.accounts[acceptor].hitch();
            }
            ErrnoClass::Interrupted => self.accounts[acceptor].hitch(),
            ErrnoClass::Resource => {
                let account = &mut self.accounts[acceptor];
                account.exhausted = queued > 0;
                account.pass.exhausted += 1;
                // The reserve descriptor makes a second try of a pass that fails as well.
                if queued > 0 && account.pass.exhausted == 1 {
                    let [last, before] = account.shortages;
                    account.shortages = [Some(self.now), last];
                    if before.is_some_and(|before| self.now - before < SHORTAGES_APART) {
                        let what =
                            format!("acceptor {acceptor} ran out of something three times in a moment");
                        self.violate("P2", what);
                    }
                }
            }
            ErrnoClass::Empty => {
                self.accounts[acceptor].empty += 1;
                if !self.disturbed && self.accounts.len() == 1 && !self.accounts[acceptor].tries_in_vain {
                    self.violate("P14", format!("acceptor {acceptor} called accept on an empty queue"));
                }
            }
            ErrnoClass::Fatal => {}
        }
    }

    pub(super) fn delivers(&mut self, acceptor: usize, serial: u64) {
        let account = &mut self.accounts[acceptor];
        account.delivered += 1;
        let denied = std::mem::take(&mut account.denied);
        account.in_vain = 0;
        account.backoffs = 0;
        account.shortages = [None; 2];
        let in_order = serial > std::mem::replace(&mut account.last_serial, serial);
        if denied {
            self.violate(
                "P5",
                format!("acceptor {acceptor} delivered connection {serial}, which was denied"),
            );
        }
        if !in_order {
            self.violate("P12", format!("acceptor {acceptor} delivered connection {serial} out of order"));
        }
    }

    pub(super) fn closes(&mut self, serial: u64, settled: bool) {
        self.closed += 1;
        if !settled {
            self.violate("P5", format!("connection {serial} was taken, and neither delivered nor refused"));
        }
    }

    /// Connections open on the server's side.
    pub(super) fn open(&self) -> u64 {
        self.taken - self.closed
    }

    pub(super) fn takes_place(&mut self, gate: usize) {
        let places = &mut self.gates[gate];
        places.taken += 1;
        let Capacity { limit, taken, .. } = *places;
        if taken > limit {
            self.violate("P3", format!("{taken} places are taken of {limit}"));
        }
    }

    pub(super) fn gives_place(&mut self, gate: usize) {
        let places = &mut self.gates[gate];
        match places.taken.checked_sub(1) {
            Some(left) => places.taken = left,
            None => self.violate("P4", "a place was given back that nobody had"),
        }
    }

    /// So many places of a gate are out, those included that are kept for somebody in line. `unused`: one has come back for
    /// which nobody came, or nobody who might come in.
    pub(super) fn places_are_out(&mut self, gate: usize, in_use: u32, unused: bool) {
        let places = &mut self.gates[gate];
        let free = places.limit.saturating_sub(in_use);
        let is_down = unused || free >= places.low_water || in_use == 0;
        places.was_full = free == 0 || (places.was_full && !is_down);
    }

    /// A place came back that leaves room: the line moves on by one.
    pub(super) fn line_moves(&mut self, gate: usize) {
        let low_water = self.gates[gate].low_water as usize;
        let line: Vec<usize> =
            (0..self.accounts.len()).filter(|acceptor| self.gate_of(*acceptor) == gate).collect();
        for acceptor in &line {
            let account = &mut self.accounts[*acceptor];
            account.passed_over += u32::from(account.in_line && !account.paused && !account.stopped);
            let passed_over = account.passed_over;
            self.passed_over_most = self.passed_over_most.max(passed_over);
            // While it comes down to the low-water mark the line does not move.
            if passed_over as usize >= line.len() + low_water.max(1) {
                let what = format!("acceptor {acceptor} stands in line, and {passed_over} places came back");
                self.violate("P11", what);
            }
        }
    }

    pub(super) fn set_alarm(&mut self, acceptor: usize, after: Option<Duration>) {
        let at = after.map(|after| self.now.saturating_add(after));
        let account = &mut self.accounts[acceptor];
        let before = std::mem::replace(&mut account.alarm, at);
        let (Some(after), Some(at)) = (after, at) else { return };
        account.pass.alarms += 1;
        let in_vain = std::mem::take(&mut account.in_vain);
        account.backoffs += u32::from(before.is_none());
        let too_long = account.backoffs == 1 && after > BACKOFF_FIRST_MAX;
        let PassAccount { began, exhausted, hitches, alarms } = account.pass;
        let throttled = account.throttled.take().map(|wait| wait.max(BACKOFF_MIN));
        let held_back = account.refuses.rate.is_some();
        // Time may pass between a look at the clock and the setting of the alarm.
        let grace = self.now.saturating_sub(began);
        if alarms > 1 {
            self.violate("P9", format!("acceptor {acceptor} set its alarm {alarms} times in one pass"));
        } else if before.is_some_and(|before| before + grace < at) {
            self.violate("P9", format!("acceptor {acceptor} put off an alarm that was set"));
        } else if exhausted > 0 && after < BACKOFF_MIN {
            self.violate("P2", format!("acceptor {acceptor} backs off for {after:?}"));
        } else if let Some(wait) = throttled {
            if after != wait && exhausted == 0 && !held_back {
                let what =
                    format!("acceptor {acceptor} has to wait for {wait:?}, and sets its alarm for {after:?}");
                self.violate("P2", what);
            }
        } else if too_long && !held_back {
            self.violate(
                "P7",
                format!("acceptor {acceptor} backs off for {after:?} at once after a success"),
            );
        } else if exhausted == 0 && hitches > 0 && before.is_none() && in_vain < PATIENCE && !held_back {
            self.violate("P7", format!("acceptor {acceptor} backs off, and was short of nothing"));
        }
    }

    pub(super) fn pass_time(&mut self, by: Duration) {
        self.now += by;
        for account in &mut self.accounts {
            account.alarm = account.alarm.filter(|at| *at > self.now);
            account.exhausted = false;
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// How long until the next alarm goes off.
    pub(super) fn next_alarm(&self) -> Option<Duration> {
        self.accounts.iter().filter_map(|account| account.alarm).min().map(|at| at - self.now)
    }

    /// Nothing that was queued may have got lost; `queued` is what is there at the end.
    pub(super) fn count_up(&mut self, queued: u64) {
        let gone = self.taken + self.aborted + self.stolen;
        if self.shut.is_empty() && self.arrived != gone + queued {
            let what = format!("{} arrived, {gone} were taken or lost, {queued} are queued", self.arrived);
            self.violate("P10", what);
        }
    }

    /// The acceptor's own counters against what was seen through the seam.
    pub(super) fn audit(&mut self, acceptor: usize, counters: &Counters) {
        let account = &self.accounts[acceptor];
        let seen = (account.attempts, account.delivered, account.refused, account.empty);
        let told = (counters.attempts, counters.delivered, counters.refused, counters.empty);
        if seen != told || !counters.is_balanced() {
            let what = format!("acceptor {acceptor} (attempts, delivered, refused, empty): {seen:?}");
            self.violate("P8", format!("{what} and not {told:?}: {counters}"));
        } else if !account.refuses.allow(counters) {
            self.violate(
                "P5",
                format!("acceptor {acceptor} refused some that might have waited: {counters}"),
            );
        }
    }
}

impl Expected {
    fn hitch(&mut self) {
        self.pass.hitches += 1;
        self.in_vain += 1;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.told_dead > 0
    }

    /// Whether it listens no more, for good.
    pub(super) fn is_over(&self) -> bool {
        self.is_dead() || self.stopped || self.gone
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}
