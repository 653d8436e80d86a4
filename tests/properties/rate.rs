//! The token bucket against one that is filled as a person would fill it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use epoll_acceptor::admission::Clock;
use epoll_acceptor::{Admission, RateLimit, Reserve};
use proptest::prelude::*;

#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Hands {
    fn pass(&self, nanoseconds: u64) {
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// What a token costs in whole nanoseconds, and not less.
const fn interval(rate: u32) -> u64 {
    1_000_000_000_u64.div_ceil(rate as u64)
}

/// A bucket that counts in nanoseconds: so many of them make a token.
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
    /// Takes, and gives it back.
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
    fn the_bucket_is_as_full_as_one_that_is_filled_by_hand(
        rate in 1..1000_u32,
        burst in 1..8_u32,
        steps in steps(),
    ) {
        let clock = Hands::default();
        let limit = RateLimit::with_clock(rate, clock.clone()).burst(burst);
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
                    (Reserve::Room(_), Ok(())) => {}
                    (Reserve::NotBefore(wait), Err(lacking)) => {
                        prop_assert_eq!(wait, Duration::from_nanos(lacking));
                    }
                    (answer, expected) => prop_assert!(false, "{:?} and not {:?}", answer, expected),
                },
                Step::Cancel => {
                    if let Reserve::Room(token) = limit.reserve() {
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
fn who_waits_as_long_as_it_was_told_gets_in_and_not_sooner() {
    for rate in [1, 3, 7, 200, 999, 12_345] {
        let clock = Hands::default();
        let limit = RateLimit::with_clock(rate, clock.clone()).burst(1);
        while let Reserve::Room(_) = limit.reserve() {}
        for _ in 0..20 {
            let Reserve::NotBefore(wait) = limit.reserve() else { panic!("too soon at {rate}") };
            clock.pass(u64::try_from(wait.as_nanos()).unwrap() - 1);
            assert!(matches!(limit.reserve(), Reserve::NotBefore(wait) if wait == Duration::from_nanos(1)));
            clock.pass(1);
            assert!(matches!(limit.reserve(), Reserve::Room(_)), "{rate}");
        }
    }
}

/// A policy may take its time to refuse somebody.
#[test]
fn a_token_that_comes_back_late_makes_no_burst() {
    let clock = Hands::default();
    let limit = RateLimit::with_clock(10, clock.clone()).burst(1);
    let token = || match limit.reserve() {
        Reserve::Room(token) => token,
        other => panic!("there is one: {other:?}"),
    };
    let late = token();
    clock.pass(1_000_000_000);
    let other = token();
    limit.cancel(late);
    assert!(matches!(limit.reserve(), Reserve::NotBefore(_)), "one in a tenth of a second");
    limit.cancel(other);
    assert!(matches!(limit.reserve(), Reserve::Room(_)));

    // Two at once, and one of them comes back just before it would have come in again.
    let clock = Hands::default();
    let limit = RateLimit::with_clock(1, clock.clone()).burst(2);
    let at_once = || std::iter::from_fn(|| matches!(limit.reserve(), Reserve::Room(_)).then_some(())).count();
    let Reserve::Room(early) = limit.reserve() else { panic!("there are two") };
    clock.pass(999_000_000);
    let Reserve::Room(_used) = limit.reserve() else { panic!("there are two") };
    limit.cancel(early);
    clock.pass(2_000_000);
    assert_eq!(at_once(), 1, "two in two milliseconds");
}

/// A timer of milliseconds could not keep a rate of more with a burst of one.
#[test]
fn a_burst_is_at_least_what_comes_in_a_millisecond() {
    for (rate, burst, at_once) in [(1000, 1, 1), (1001, 1, 2), (50_000, 3, 50), (50_000, 90, 90), (10, 1, 1)]
    {
        let limit = RateLimit::with_clock(rate, Hands::default()).burst(burst);
        let admitted = std::iter::from_fn(|| match limit.reserve() {
            Reserve::Room(token) => Some(token),
            _ => None,
        });
        assert_eq!(admitted.count(), at_once, "{rate} {burst}");
    }
}

#[test]
#[should_panic(expected = "a rate of 0")]
fn a_rate_of_nothing_is_a_mistake() {
    let _ = RateLimit::per_second(0);
}

#[test]
#[should_panic(expected = "a burst of 0")]
fn a_burst_of_nothing_is_a_mistake() {
    let _ = RateLimit::per_second(1).burst(0);
}
