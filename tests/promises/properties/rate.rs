//! The rate limit (GCRA) against a naive token bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use epoll_acceptor::filter::RateLimitBuilder;
use epoll_acceptor::filter::{Clock, Reservation};
use epoll_acceptor::{Filter, RateLimit};
use proptest::prelude::*;

#[derive(Clone, Default)]
struct Manual(Arc<AtomicU64>);

impl Clock for Manual {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Manual {
    fn pass(&self, nanoseconds: u64) {
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The nanoseconds of a token, rounded up.
const fn interval(rate: u32) -> u64 {
    1_000_000_000_u64.div_ceil(rate as u64)
}

/// A bucket that counts nanoseconds: an interval of them makes a token.
struct Naive {
    filled: u64,
    interval: u64,
    burst: u64,
}

impl Naive {
    fn pass(&mut self, nanoseconds: u64) {
        self.filled = (self.filled + nanoseconds).min(self.burst * self.interval);
    }

    fn take(&mut self) -> Result<(), u64> {
        match self.filled.checked_sub(self.interval) {
            Some(left) => {
                self.filled = left;
                Ok(())
            }
            None => Err(self.interval - self.filled),
        }
    }

    fn put_back(&mut self) {
        self.filled = (self.filled + self.interval).min(self.burst * self.interval);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Take,
    /// Takes a token, and cancels it.
    Cancel,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..30_000_000_u64).prop_map(Step::Pass),
        Just(Step::Take),
        Just(Step::Take),
        Just(Step::Take),
        Just(Step::Cancel),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn rate_limit_agrees_with_a_naive_bucket(
        rate in 1..1000_u32,
        burst in 1..8_u32,
        steps in steps(),
    ) {
        let clock = Manual::default();
        let limit = RateLimit::builder(rate).clock(clock.clone()).burst(burst).build();
        let interval = interval(rate);
        let burst = u64::from(burst);
        let mut naive = Naive { filled: burst * interval, interval, burst };
        for step in steps {
            match step {
                Step::Pass(nanoseconds) => {
                    clock.pass(nanoseconds);
                    naive.pass(nanoseconds);
                }
                Step::Take => match (limit.reserve(), naive.take()) {
                    (Reservation::Granted(_), Ok(())) => {}
                    (Reservation::RetryAfter(wait), Err(missing)) => {
                        prop_assert_eq!(wait, Duration::from_nanos(missing));
                    }
                    (answer, expected) => prop_assert!(false, "{:?} and not {:?}", answer, expected),
                },
                Step::Cancel => {
                    if let Reservation::Granted(token) = limit.reserve() {
                        limit.cancel(token);
                        prop_assert!(naive.take().is_ok());
                        naive.put_back();
                    }
                }
            }
        }
    }
}

#[test]
fn token_comes_exactly_when_it_was_announced() {
    for rate in [1, 3, 7, 200, 999, 12_345] {
        let clock = Manual::default();
        let limit = RateLimit::builder(rate).clock(clock.clone()).burst(1).build();
        while let Reservation::Granted(_) = limit.reserve() {}
        for _ in 0..20 {
            let Reservation::RetryAfter(wait) = limit.reserve() else { panic!("too soon at {rate}") };
            clock.pass(u64::try_from(wait.as_nanos()).unwrap() - 1);
            assert!(
                matches!(limit.reserve(), Reservation::RetryAfter(wait) if wait == Duration::from_nanos(1))
            );
            clock.pass(1);
            assert!(matches!(limit.reserve(), Reservation::Granted(_)), "{rate}");
        }
    }
}

/// Another filter may take long to reject a connection.
#[test]
fn late_cancelled_token_makes_no_burst() {
    let clock = Manual::default();
    let limit = RateLimit::builder(10).clock(clock.clone()).burst(1).build();
    let token = || match limit.reserve() {
        Reservation::Granted(token) => token,
        other => panic!("there is one: {other:?}"),
    };
    let late = token();
    clock.pass(1_000_000_000);
    let other = token();
    limit.cancel(late);
    assert!(matches!(limit.reserve(), Reservation::RetryAfter(_)), "one in a tenth of a second");
    limit.cancel(other);
    assert!(matches!(limit.reserve(), Reservation::Granted(_)));

    // Two at once, and one of them comes back just before it would have come in again.
    let clock = Manual::default();
    let limit = RateLimit::builder(1).clock(clock.clone()).burst(2).build();
    let at_once =
        || std::iter::from_fn(|| matches!(limit.reserve(), Reservation::Granted(_)).then_some(())).count();
    let Reservation::Granted(early) = limit.reserve() else { panic!("there are two") };
    clock.pass(999_000_000);
    let Reservation::Granted(_used) = limit.reserve() else { panic!("there are two") };
    limit.cancel(early);
    clock.pass(2_000_000);
    assert_eq!(at_once(), 1, "two in two milliseconds");
}

/// A timer of milliseconds could not keep a higher rate with a burst of one.
#[test]
fn burst_is_at_least_that_of_a_millisecond() {
    for (rate, burst, at_once) in [
        (1000, Some(1), 1),
        (1001, Some(1), 2),
        (50_000, Some(3), 50),
        (50_000, Some(90), 90),
        (10, Some(1), 1),
        (10, None, 1),
        (1010, None, 50),
    ] {
        let limit = RateLimit::builder(rate).clock(Manual::default());
        let limit = burst.into_iter().fold(limit, RateLimitBuilder::burst).build();
        let admitted = std::iter::from_fn(|| match limit.reserve() {
            Reservation::Granted(token) => Some(token),
            _ => None,
        });
        assert_eq!(admitted.count(), at_once, "{rate} {burst:?}");
    }
}

#[test]
#[should_panic(expected = "a rate must be at least 1")]
fn zero_rate_panics() {
    let _ = RateLimit::per_second(0);
}

#[test]
#[should_panic(expected = "a burst must be at least 1")]
fn zero_burst_panics() {
    let _ = RateLimit::builder(1).burst(0);
}

#[test]
fn rate_changes_while_running() {
    let clock = Manual::default();
    let limit = RateLimit::builder(1).clock(clock.clone()).burst(1).build();
    let handle = limit.clone();
    assert!(matches!(limit.reserve(), Reservation::Granted(_)));
    assert!(matches!(limit.reserve(), Reservation::RetryAfter(wait) if wait == Duration::from_secs(1)));
    clock.pass(1_000_000_000);
    handle.set_rate(10);
    assert_eq!(limit.rate(), 10);
    assert!(matches!(limit.reserve(), Reservation::Granted(_)));
    assert!(matches!(limit.reserve(), Reservation::RetryAfter(wait) if wait == Duration::from_millis(100)));
}

#[test]
fn clock_at_its_maximum_opens_no_rate_limit() {
    let clock = Manual::default();
    clock.pass(u64::MAX);
    let limit = RateLimit::builder(1).clock(clock).burst(2).build();
    let admitted = (0..10).filter(|_| matches!(limit.reserve(), Reservation::Granted(_))).count();
    assert!(admitted <= 2, "{admitted}");
}
