//! Composed filters: tuples in every nesting, `Option`, `Arc`, `Box` and references ask their parts in order, and cancel
//! what was granted on every way out. Composites with one fault each show that the check would find it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::filter::{Cause, ConnectionInfo, Rejection, Reservation, TestConnection};
use epoll_acceptor::{Filter, Refusal};

/// The answers of one part.
#[derive(Clone, Copy, Debug)]
struct Plan {
    reserve: Answer,
    admit: Answer,
    cancel_panics: bool,
    needs_peer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    Rejected,
    Panic,
    /// Of `reserve` only.
    Later,
}

const SOUND: Plan =
    Plan { reserve: Answer::Yes, admit: Answer::Yes, cancel_panics: false, needs_peer: false };

/// A call of a part, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Reserve(usize),
    Admit(usize),
    Cancel(usize),
    /// A permit was dropped without a cancel.
    Release(usize),
}

type Log = Arc<Mutex<Vec<Call>>>;

struct Part {
    number: usize,
    plan: Plan,
    log: Log,
}

struct Held {
    number: usize,
    cancelled: bool,
    log: Log,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.cancelled {
            self.log.lock().unwrap().push(Call::Release(self.number));
        }
    }
}

impl Part {
    fn notes(&self, call: Call) {
        self.log.lock().unwrap().push(call);
    }

    fn rejection(number: usize) -> Rejection {
        Rejection::new(Cause::Filter, Refusal::message(number.to_string()))
    }
}

fn panic_quietly() -> ! {
    resume_unwind(Box::new("injected"))
}

impl Filter for Part {
    type Permit = Held;

    fn reserve(&self) -> Reservation<Held> {
        self.notes(Call::Reserve(self.number));
        match self.plan.reserve {
            Answer::Yes => {
                let log = Arc::clone(&self.log);
                Reservation::Granted(Held { number: self.number, cancelled: false, log })
            }
            Answer::Later => Reservation::RetryAfter(Duration::from_secs(self.number as u64)),
            Answer::Rejected => Reservation::Rejected(Self::rejection(self.number)),
            Answer::Panic => panic_quietly(),
        }
    }

    fn admit(&self, _: &ConnectionInfo<'_>, permit: &mut Held) -> Result<(), Rejection> {
        assert_eq!(permit.number, self.number, "another part's permit");
        self.notes(Call::Admit(self.number));
        match self.plan.admit {
            Answer::Rejected => Err(Self::rejection(self.number)),
            Answer::Panic => panic_quietly(),
            Answer::Yes | Answer::Later => Ok(()),
        }
    }

    fn cancel(&self, mut permit: Held) {
        assert_eq!(permit.number, self.number, "another part's permit");
        permit.cancelled = true;
        self.notes(Call::Cancel(self.number));
        if self.plan.cancel_panics {
            panic_quietly();
        }
    }

    fn needs_peer_addr(&self) -> bool {
        self.plan.needs_peer
    }
}

/// The answer of the whole, with the number of the part that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Yes,
    Later(usize),
    Rejected(usize),
    Panic,
}

/// An operation of the whole, and the calls that it made: the questions in order, then the cancels by number.
type Step = (Outcome, Vec<Call>);

/// The course of one connection through a filter: it reserves, and if that is granted, admits and cancels.
#[derive(Debug, PartialEq, Eq)]
struct Course {
    needs_peer: bool,
    reserve: Step,
    admit_and_cancel: Option<(Step, Step)>,
}

fn observed<F: Filter>(filter: &F, log: &Log) -> Course {
    let calls = || {
        let mut calls = std::mem::take(&mut *log.lock().unwrap());
        let questions = |call: &Call| matches!(call, Call::Reserve(_) | Call::Admit(_));
        let (questions, mut others): (Vec<_>, Vec<_>) = calls.drain(..).partition(questions);
        others.sort_unstable();
        [questions, others].concat()
    };
    let rejected_by = |rejection: &Rejection| match &rejection.refusal {
        Refusal::Message(number) => Outcome::Rejected(std::str::from_utf8(number).unwrap().parse().unwrap()),
        other => panic!("{other:?}"),
    };
    let reserved = catch_unwind(AssertUnwindSafe(|| filter.reserve()));
    let (outcome, permit) = match reserved {
        Ok(Reservation::Granted(permit)) => (Outcome::Yes, Some(permit)),
        Ok(Reservation::RetryAfter(wait)) => (Outcome::Later(usize::try_from(wait.as_secs()).unwrap()), None),
        Ok(Reservation::Rejected(rejection)) => (rejected_by(&rejection), None),
        Err(_) => (Outcome::Panic, None),
    };
    let reserve = (outcome, calls());
    let admit_and_cancel = permit.map(|mut permit| {
        let connection = TestConnection::default();
        let admitted = catch_unwind(AssertUnwindSafe(|| filter.admit(&connection.info(), &mut permit)));
        let outcome = match admitted {
            Ok(Ok(())) => Outcome::Yes,
            Ok(Err(rejection)) => rejected_by(&rejection),
            Err(_) => Outcome::Panic,
        };
        let admit = (outcome, calls());
        let cancelled = catch_unwind(AssertUnwindSafe(|| filter.cancel(permit)));
        (admit, (cancelled.map_or(Outcome::Panic, |()| Outcome::Yes), calls()))
    });
    Course { needs_peer: filter.needs_peer_addr(), reserve, admit_and_cancel }
}

/// The rules, written down a second time.
fn expected(plans: &[Plan]) -> Course {
    let mut questions = Vec::new();
    let mut granted = Vec::new();
    let mut outcome = Outcome::Yes;
    for (number, plan) in plans.iter().enumerate() {
        questions.push(Call::Reserve(number));
        match plan.reserve {
            Answer::Yes => granted.push(number),
            // The first rejection counts, and the others are asked: one of them may ask to retry later.
            Answer::Rejected if outcome == Outcome::Yes => outcome = Outcome::Rejected(number),
            Answer::Rejected => {}
            Answer::Later => outcome = Outcome::Later(number),
            Answer::Panic => outcome = Outcome::Panic,
        }
        if matches!(outcome, Outcome::Later(_) | Outcome::Panic) {
            break;
        }
    }
    let cancelled = |numbers: &[usize]| numbers.iter().map(|n| Call::Cancel(*n)).collect::<Vec<_>>();
    let panics = |numbers: &[usize]| numbers.iter().any(|n| plans[*n].cancel_panics);
    let needs_peer = plans.iter().any(|plan| plan.needs_peer);
    if outcome != Outcome::Yes {
        let outcome = if panics(&granted) { Outcome::Panic } else { outcome };
        let reserve = (outcome, [questions, cancelled(&granted)].concat());
        return Course { needs_peer, reserve, admit_and_cancel: None };
    }
    let mut admit = (Outcome::Yes, Vec::new());
    for (number, plan) in plans.iter().enumerate() {
        admit.1.push(Call::Admit(number));
        match plan.admit {
            Answer::Rejected => admit.0 = Outcome::Rejected(number),
            Answer::Panic => admit.0 = Outcome::Panic,
            Answer::Yes | Answer::Later => continue,
        }
        break;
    }
    let outcome = if panics(&granted) { Outcome::Panic } else { Outcome::Yes };
    let cancel = (outcome, cancelled(&granted));
    Course { needs_peer, reserve: (Outcome::Yes, questions), admit_and_cancel: Some((admit, cancel)) }
}

type Parts = Vec<Arc<Part>>;

/// Compares a composite with the rules, for these answers of its parts.
fn check<F: Filter>(plans: &[Plan], compose: impl Fn(&Parts) -> F) -> Result<(), String> {
    let log = Log::default();
    let (observed, expected) = (observed(&compose(&parts_of(plans, &log)), &log), expected(plans));
    if observed == expected {
        Ok(())
    } else {
        Err(format!("{plans:?}:\n{observed:?}, and not\n{expected:?}"))
    }
}

fn parts_of(plans: &[Plan], log: &Log) -> Parts {
    let part = |(number, plan): (usize, &Plan)| Arc::new(Part { number, plan: *plan, log: Arc::clone(log) });
    plans.iter().enumerate().map(part).collect()
}

/// Every combination of answers of `parts` parts, with at most one panic.
fn all_plans(parts: u32) -> Vec<Vec<Plan>> {
    const RESERVE: [Answer; 4] = [Answer::Yes, Answer::Rejected, Answer::Panic, Answer::Later];
    const ADMIT: [Answer; 3] = [Answer::Yes, Answer::Rejected, Answer::Panic];
    let combinations = |choices: usize| {
        (0..choices.pow(parts)).map(move |mut n| {
            let digit = |_| {
                let digit = n % choices;
                n /= choices;
                digit
            };
            (0..parts).map(digit).collect::<Vec<_>>()
        })
    };
    let reserves = combinations(RESERVE.len())
        .map(|digits| digits.iter().map(|n| Plan { reserve: RESERVE[*n], ..SOUND }).collect::<Vec<_>>());
    let admits = combinations(ADMIT.len())
        .map(|digits| digits.iter().map(|n| Plan { admit: ADMIT[*n], ..SOUND }).collect::<Vec<_>>());
    let needs = combinations(2)
        .map(|digits| digits.iter().map(|n| Plan { needs_peer: *n == 1, ..SOUND }).collect::<Vec<_>>());
    let mut all: Vec<_> = reserves.chain(admits).chain(needs).collect();
    // One cancel that panics, where no other call does: two panics at once abort the process.
    for plans in all.clone() {
        if !plans.iter().any(|plan| plan.reserve == Answer::Panic) {
            all.extend((0..plans.len()).map(|panics| {
                let mut plans = plans.clone();
                plans[panics].cancel_panics = true;
                plans
            }));
        }
    }
    all
}

#[track_caller]
fn assert_composes<F: Filter>(parts: u32, compose: impl Fn(&Parts) -> F) {
    for plans in all_plans(parts) {
        check(&plans, &compose).unwrap_or_else(|difference| panic!("{difference}"));
    }
}

/// As [`assert_composes`], except that a cancel which panics within `reserve` ends that at once: parts of the outer
/// composite are not asked then.
#[track_caller]
fn assert_nests<F: Filter>(parts: u32, compose: impl Fn(&Parts) -> F) {
    let undoes = |plans: &[Plan]| plans.iter().any(|plan| plan.reserve != Answer::Yes);
    let panics = |plans: &[Plan]| plans.iter().any(|plan| plan.cancel_panics);
    for plans in all_plans(parts) {
        if !(undoes(&plans) && panics(&plans)) {
            check(&plans, &compose).unwrap_or_else(|difference| panic!("{difference}"));
            continue;
        }
        let log = Log::default();
        let (_, calls) = observed(&compose(&parts_of(&plans, &log)), &log).reserve;
        for (number, plan) in plans.iter().enumerate() {
            let granted = plan.reserve == Answer::Yes && calls.contains(&Call::Reserve(number));
            let cancels = calls.iter().filter(|call| **call == Call::Cancel(number)).count();
            assert_eq!(cancels, usize::from(granted), "{number} of {plans:?}: {calls:?}");
        }
    }
}

fn arc(parts: &Parts, n: usize) -> Arc<Part> {
    Arc::clone(&parts[n])
}

#[test]
fn single_filters_pass_every_call_on() {
    assert_composes(1, |parts| arc(parts, 0));
    assert_composes(1, |parts| (arc(parts, 0),));
    assert_composes(1, |parts| Some(arc(parts, 0)));
    assert_composes(1, |parts| Box::new(arc(parts, 0)));
    assert_composes(1, |parts| -> Arc<dyn Filter<Permit = Held>> { arc(parts, 0) });
    assert_composes(1, |parts| -> Box<dyn Filter<Permit = Held>> { Box::new(arc(parts, 0)) });
    assert_composes(1, |parts| (None::<Arc<Part>>, ((), arc(parts, 0))));
    for plans in all_plans(1) {
        let log = Log::default();
        let part = Part { number: 0, plan: plans[0], log: Arc::clone(&log) };
        assert_eq!(observed(&&part, &log), expected(&plans));
        assert_eq!(observed(&&&part, &log), expected(&plans));
    }
}

#[test]
fn tuples_of_every_length_follow_the_rules() {
    assert_composes(2, |parts| (arc(parts, 0), arc(parts, 1)));
    assert_composes(3, |parts| (arc(parts, 0), arc(parts, 1), arc(parts, 2)));
    assert_composes(4, |parts| (arc(parts, 0), arc(parts, 1), arc(parts, 2), arc(parts, 3)));
    assert_composes(5, |parts| (arc(parts, 0), arc(parts, 1), arc(parts, 2), arc(parts, 3), arc(parts, 4)));
    assert_composes(6, |parts| {
        (arc(parts, 0), arc(parts, 1), arc(parts, 2), arc(parts, 3), arc(parts, 4), arc(parts, 5))
    });
}

#[test]
fn nesting_changes_nothing() {
    // As `Builder::filter` nests them.
    assert_nests(3, |parts| ((((), arc(parts, 0)), arc(parts, 1)), arc(parts, 2)));
    assert_nests(3, |parts| (arc(parts, 0), (arc(parts, 1), arc(parts, 2))));
    assert_nests(3, |parts| Arc::new((Box::new(arc(parts, 0)), Some((arc(parts, 1), Some(arc(parts, 2)))))));
    assert_nests(4, |parts| ((arc(parts, 0), arc(parts, 1)), (arc(parts, 2), arc(parts, 3))));
}

#[test]
fn nothing_admits_every_connection() {
    let log = Log::default();
    let none = None::<Part>;
    for course in [observed(&(), &log), observed(&none, &log), observed(&((), none), &log)] {
        assert_eq!(course, expected(&[]));
    }
}

#[test]
fn permits_in_service_are_released_not_cancelled() {
    let log = Log::default();
    let part = |number| Part { number, plan: SOUND, log: Arc::clone(&log) };
    let filter = ((part(0), Some(part(1))), Box::new(part(2)));
    let Reservation::Granted(permit) = filter.reserve() else { panic!("all grant") };
    log.lock().unwrap().clear();
    drop(permit);
    assert_eq!(*log.lock().unwrap(), [0, 1, 2].map(Call::Release));
}

/// Two filters, put together with a fault.
struct FaultyPair<const FAULT: u8>(Arc<Part>, Arc<Part>);

const NONE: u8 = 0;
/// Keeps what the first granted when the second does not grant.
const HOLDS_ON: u8 = 1;
/// Drops it, which uses up what should be put back.
const DROPS: u8 = 2;
/// Asks the second one after the first has asked to retry later.
const ASKS_ON: u8 = 3;
/// Rejects at once, though the second would ask to retry later.
const REJECTS_AT_ONCE: u8 = 4;
/// Asks both for the admission, even if the first rejects.
const ASKS_ALL: u8 = 5;
/// Cancels one of two permits.
const CANCELS_ONE: u8 = 6;
/// Cancels without a guard: a panic of the first leaves out the second.
const CANCELS_IN_TURN: u8 = 7;
/// Asks for the address only if both need it.
const NEEDS_BOTH: u8 = 8;
/// Cancels the first permit only if nothing panics.
const NO_GUARD: u8 = 9;

impl<const FAULT: u8> FaultyPair<FAULT> {
    /// The first permit goes back, because the second was not granted.
    fn undo(&self, first: Option<Held>) {
        match first {
            Some(first) if FAULT == HOLDS_ON => std::mem::forget(first),
            Some(first) if FAULT != DROPS => self.0.cancel(first),
            _ => {}
        }
    }
}

impl<const FAULT: u8> Filter for FaultyPair<FAULT> {
    type Permit = (Held, Held);

    fn reserve(&self) -> Reservation<(Held, Held)> {
        let mut rejected = None;
        let mut later = None;
        let mut first = None;
        match self.0.reserve() {
            Reservation::Granted(permit) => first = Some(permit),
            Reservation::Rejected(rejection) if FAULT == REJECTS_AT_ONCE => {
                return Reservation::Rejected(rejection);
            }
            Reservation::Rejected(rejection) => rejected = Some(rejection),
            Reservation::RetryAfter(wait) if FAULT == ASKS_ON => later = Some(wait),
            Reservation::RetryAfter(wait) => return Reservation::RetryAfter(wait),
        }
        let second = match catch_unwind(AssertUnwindSafe(|| self.1.reserve())) {
            Ok(second) => second,
            Err(panic) => {
                if FAULT != NO_GUARD {
                    self.undo(first.take());
                }
                resume_unwind(panic);
            }
        };
        match (first, second, rejected, later) {
            (Some(first), Reservation::Granted(second), ..) => Reservation::Granted((first, second)),
            (first, second, rejected, later) => {
                self.undo(first);
                match (second, rejected, later) {
                    (Reservation::RetryAfter(wait), ..) => Reservation::RetryAfter(later.unwrap_or(wait)),
                    (Reservation::Granted(second), rejected, later) => {
                        self.1.cancel(second);
                        match (rejected, later) {
                            (Some(rejection), _) => Reservation::Rejected(rejection),
                            (None, later) => Reservation::RetryAfter(later.unwrap_or_default()),
                        }
                    }
                    (Reservation::Rejected(_), None, Some(wait)) => Reservation::RetryAfter(wait),
                    (Reservation::Rejected(rejection), first, _) => {
                        Reservation::Rejected(first.unwrap_or(rejection))
                    }
                }
            }
        }
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut (Held, Held)) -> Result<(), Rejection> {
        let first = self.0.admit(connection, &mut permit.0);
        if FAULT != ASKS_ALL {
            first.clone()?;
        }
        first.and(self.1.admit(connection, &mut permit.1))
    }

    fn cancel(&self, (first, second): (Held, Held)) {
        let cancelled = catch_unwind(AssertUnwindSafe(|| self.0.cancel(first)));
        match cancelled {
            Err(panic) if FAULT == CANCELS_IN_TURN => {
                drop(second);
                resume_unwind(panic);
            }
            cancelled => {
                if FAULT != CANCELS_ONE {
                    self.1.cancel(second);
                }
                cancelled.unwrap_or_else(|panic| resume_unwind(panic));
            }
        }
    }

    fn needs_peer_addr(&self) -> bool {
        match FAULT {
            NEEDS_BOTH => self.0.needs_peer_addr() && self.1.needs_peer_addr(),
            _ => self.0.needs_peer_addr() || self.1.needs_peer_addr(),
        }
    }
}

fn difference<const FAULT: u8>() -> Option<String> {
    let pair = |parts: &Parts| FaultyPair::<FAULT>(arc(parts, 0), arc(parts, 1));
    all_plans(2).iter().find_map(|plans| check(plans, pair).err())
}

#[test]
fn every_fault_of_composition_is_found() {
    if let Some(difference) = difference::<NONE>() {
        panic!("{difference}");
    }
    let found = [
        ("holds on", difference::<HOLDS_ON>()),
        ("drops", difference::<DROPS>()),
        ("asks on", difference::<ASKS_ON>()),
        ("rejects at once", difference::<REJECTS_AT_ONCE>()),
        ("asks all", difference::<ASKS_ALL>()),
        ("cancels one", difference::<CANCELS_ONE>()),
        ("cancels in turn", difference::<CANCELS_IN_TURN>()),
        ("needs both", difference::<NEEDS_BOTH>()),
        ("no guard", difference::<NO_GUARD>()),
    ];
    for (fault, difference) in found {
        assert!(difference.is_some(), "{fault}: not found");
    }
}
