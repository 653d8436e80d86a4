//! Filters with arbitrary answers for a while: none can strand a connection, keep a permit, or make an acceptor spin.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use epoll_acceptor::filter::{Clock, ConnectionInfo, Rejection, Reservation};
use epoll_acceptor::sim::{Policy, PolicyFilter, Real, Script, Setup, run_with};
use epoll_acceptor::{Filter, Gate};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::properties::setups;
use crate::{say, thorough};

/// Ten years: the waits of all answers together fit into the simulated clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

#[derive(Clone, Copy, Debug)]
enum Answer {
    Granted,
    RetryAfter(Duration),
    Rejected,
}

/// The first answers of a filter, call by call. When they are used up, it grants and admits.
#[derive(Clone, Debug, Default)]
struct Answers {
    reserve: Vec<Answer>,
    admit: Vec<bool>,
}

thread_local! {
    /// The answers of the next filter that is made.
    static ANSWERS: RefCell<Answers> = RefCell::default();
    /// The permits that are neither cancelled nor released.
    static PERMITS: Arc<AtomicI64> = Arc::default();
}

/// All acceptors of a run have one, and draw on the same answers.
#[derive(Clone)]
struct Liar {
    answers: Arc<Answers>,
    reserved: Arc<AtomicU64>,
    admitted: Arc<AtomicU64>,
    permits: Arc<AtomicI64>,
}

struct Held(Arc<AtomicI64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PolicyFilter for Liar {
    fn of(_: Policy, _: &Arc<dyn Clock>) -> Option<Self> {
        let (answers, permits) = (Arc::new(ANSWERS.take()), PERMITS.with(Arc::clone));
        Some(Self { answers, reserved: Arc::default(), admitted: Arc::default(), permits })
    }
}

fn next<T: Copy>(answers: &[T], asked: &AtomicU64) -> Option<T> {
    let asked = usize::try_from(asked.fetch_add(1, Ordering::Relaxed)).ok()?;
    answers.get(asked).copied()
}

impl Filter for Liar {
    type Permit = Held;

    fn reserve(&self) -> Reservation<Held> {
        match next(&self.answers.reserve, &self.reserved) {
            Some(Answer::RetryAfter(wait)) => Reservation::RetryAfter(wait),
            Some(Answer::Rejected) => Reservation::Rejected(Rejection::close()),
            Some(Answer::Granted) | None => {
                self.permits.fetch_add(1, Ordering::Relaxed);
                Reservation::Granted(Held(Arc::clone(&self.permits)))
            }
        }
    }

    fn admit(&self, _: &ConnectionInfo<'_>, _: &mut Held) -> Result<(), Rejection> {
        match next(&self.answers.admit, &self.admitted) {
            Some(false) => Err(Rejection::reset()),
            Some(true) | None => Ok(()),
        }
    }
}

fn answers() -> impl Strategy<Value = Answers> {
    let wait = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        (0..10_000_u64).prop_map(Duration::from_micros),
        Just(LONGEST),
    ];
    let answer =
        prop_oneof![Just(Answer::Granted), wait.prop_map(Answer::RetryAfter), Just(Answer::Rejected),];
    let reserve = prop::collection::vec(answer, 0..12);
    let admit = prop::collection::vec(any::<bool>(), 0..8);
    (reserve, admit).prop_map(|(reserve, admit)| Answers { reserve, admit })
}

/// The most wakeups of a run: each answer can cost each acceptor one, and so can each act and each permit.
fn wakes_max(setup: &Setup, answers: &Answers, script: &Script, delivered: u64) -> u64 {
    let acceptors = setup.acceptors as u64;
    let lies = (answers.reserve.len() + answers.admit.len()) as u64;
    let acts = script.acts().len() as u64;
    let queued = u64::from(setup.queued) * acceptors;
    8 + acceptors * (2 + lies + 4 * acts + 2 * (queued + delivered))
}

#[test]
fn lying_filters_keep_every_promise() {
    let runs = AtomicU64::new(0);
    let setups = setups::in_pairs();
    let config = Config {
        cases: if thorough() { 100_000 } else { 5_000 },
        failure_persistence: None,
        ..Config::default()
    };
    let acts = prop::collection::vec(any::<u8>(), 0..8);
    let outcome = TestRunner::new(config).run(
        &(answers(), acts, any::<(bool, bool)>()),
        |(answers, acts, (rate, reserve))| {
            for setup in &setups {
                // This policy allows refusals for `Cause::Filter`.
                let refusals = rate.then_some((Policy::PER_SECOND, 2));
                let setup = Setup { policy: Policy::Choosy, refusals, reserve, ..setup.clone() };
                let script = Script::from_bytes(&acts, &setup);
                ANSWERS.set(answers.clone());
                runs.fetch_add(1, Ordering::Relaxed);
                let report = run_with::<Gate, Liar>(&setup, &script, &Real).map_err(|violation| {
                    TestCaseError::fail(format!("{violation}\nin {setup:?}\nafter\n{script}"))
                })?;
                let most = wakes_max(&setup, &answers, &script, report.delivered);
                let context = format!("in {setup:?}\nafter\n{script}");
                prop_assert!(report.wakes <= most, "P2: {} wakeups, at most {most}\n{context}", report.wakes);
                prop_assert_eq!(PERMITS.with(|held| held.load(Ordering::Relaxed)), 0, "P4\n{}", context);
            }
            Ok(())
        },
    );
    outcome.unwrap_or_else(|error| panic!("{error}"));
    say(&format!("lying filters: {} runs", runs.into_inner()));
}
