//! `QueueDelay` before a server that is offered more than it can serve, in virtual time: the
//! connections that it serves were not queued for long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use epoll_acceptor::filter::{Cause, Clock, TestConnection};
use epoll_acceptor::{Filter, QueueDelay};

const TARGET: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Virtual(Arc<AtomicU64>);

impl Clock for Virtual {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Virtual {
    fn set(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

fn queued(queue_time: Option<Duration>) -> TestConnection {
    TestConnection { queue_time, ..TestConnection::default() }
}

/// The queue times of the connections that were served, and of those that were refused.
#[derive(Default)]
struct Outcome {
    served: Vec<Duration>,
    refused: Vec<Duration>,
    /// When the last one was refused.
    last_refusal: Duration,
}

impl Outcome {
    fn p99(&self) -> Duration {
        let mut served = self.served.clone();
        served.sort_unstable();
        served[served.len() * 99 / 100]
    }
}

/// One server with this service time, and the accept queue before it. The kernel's clock has ticks of this length.
fn play<F: Filter<Permit = ()>>(
    filter: &F,
    clock: &Virtual,
    arrivals: impl IntoIterator<Item = Duration>,
    service: Duration,
    tick: Duration,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut queue: VecDeque<Duration> = arrivals.into_iter().collect();
    let mut free_at = Duration::ZERO;
    while let Some(arrived) = queue.pop_front() {
        let now = free_at.max(arrived);
        clock.set(now);
        let ticks = |time: Duration| time.as_nanos() / tick.as_nanos();
        let queue_time = tick * u32::try_from(ticks(now) - ticks(arrived)).unwrap();
        match filter.admit(&queued(Some(queue_time)).info(), &mut ()) {
            Ok(()) => {
                outcome.served.push(now - arrived);
                free_at = now + service;
            }
            Err(rejection) => {
                assert_eq!(rejection.cause, Cause::Delay);
                outcome.refused.push(now - arrived);
                outcome.last_refusal = now;
                // An accept and a close take time as well.
                free_at = now + Duration::from_micros(20);
            }
        }
    }
    outcome
}

fn every(interval: Duration, from: Duration, to: Duration) -> impl Iterator<Item = Duration> {
    (0..).map(move |n| from + interval * n).take_while(move |at| *at < to)
}

fn limited(clock: &Virtual) -> QueueDelay<Virtual> {
    QueueDelay::builder(TARGET).clock(clock.clone()).max_delay(10 * TARGET).build()
}

#[test]
fn served_connections_waited_twice_the_target_at_most() {
    for tick in [1, 4, 10].map(Duration::from_millis) {
        for service in [1, 10, 60].map(Duration::from_millis) {
            let clock = Virtual::default();
            let ten_minutes = 10 * MINUTE;
            let arrivals = || every(service / 2, Duration::ZERO, ten_minutes);
            let outcome = play(&limited(&clock), &clock, arrivals(), service, tick);
            let p99 = outcome.p99();
            assert!(p99 <= 2 * TARGET, "{tick:?} {service:?}: {p99:?}");
            // And the server is as busy as before.
            let could = usize::try_from(ten_minutes.as_nanos() / service.as_nanos()).unwrap();
            let served = outcome.served.len();
            assert!(served * 100 >= could * 95, "{tick:?} {service:?}: {served} of {could}");
            assert!(outcome.served.iter().all(|wait| *wait <= 10 * TARGET + tick));
            assert!(outcome.refused.iter().all(|wait| *wait > TARGET));

            let unlimited = play(&(), &Virtual::default(), arrivals(), service, tick);
            assert!(unlimited.p99() > 4 * MINUTE, "it grows with the queue: {:?}", unlimited.p99());
        }
    }
}

#[test]
fn nothing_is_refused_without_overload() {
    for tick in [1, 10].map(Duration::from_millis) {
        let service = Duration::from_millis(10);
        let clock = Virtual::default();
        // Nine tenths of what it can serve; and on top of that a burst that it works off in a part of the interval.
        let mut arrivals: Vec<_> = every(service * 10 / 9, Duration::ZERO, MINUTE).collect();
        let steady = play(&limited(&clock), &clock, arrivals.clone(), service, tick);
        assert_eq!(steady.refused.len(), 0);
        let clock = Virtual::default();
        arrivals = every(Duration::from_secs(1), Duration::ZERO, MINUTE).flat_map(|at| [at; 20]).collect();
        let bursts = play(&limited(&clock), &clock, arrivals, service, tick);
        assert_eq!(bursts.refused.len(), 0);
        assert!(bursts.served.iter().any(|wait| *wait > 3 * TARGET), "though the last of them wait for long");
    }
}

/// The server stalls for a second: what arrived then was queued for long, and is not overload.
#[test]
fn one_spike_is_not_overload() {
    let clock = Virtual::default();
    let policy = QueueDelay::builder(TARGET).clock(clock.clone()).build();
    let (service, stall) = (Duration::from_millis(1), Duration::from_secs(1));
    let waited = every(20 * service, stall, 2 * stall).map(|arrived| 2 * stall - arrived);
    for (n, queue_time) in (1..).zip(waited) {
        clock.set(2 * stall + service * n);
        assert!(policy.admit(&queued(Some(queue_time)).info(), &mut ()).is_ok(), "{queue_time:?}");
    }
}

/// A queue that is served more seldom than once per interval may be overloaded as well; one that was idle is not.
#[test]
fn slow_service_is_overload_too() {
    let clock = Virtual::default();
    let policy = QueueDelay::builder(TARGET).clock(clock.clone()).interval(4 * TARGET).build();
    let admits = |at, queue_time| {
        clock.set(TARGET * at);
        policy.admit(&queued(Some(TARGET * queue_time)).info(), &mut ()).is_ok()
    };
    assert!(admits(10, 3));
    assert!(admits(17, 3), "those between were in time, for all that is known");
    assert!(!admits(24, 8), "queued for longer than since the last one, which was late");
    assert!(!admits(31, 8));
    assert!(admits(38, 2), "idle meanwhile");
    assert!(admits(41, 2));
    assert!(!admits(44, 2), "one in each interval, all late");
    let admitted = [90, 91].map(|queue_time| {
        policy.admit(&queued(Some(Duration::from_millis(queue_time))).info(), &mut ()).is_ok()
    });
    assert_eq!(admitted, [true, false], "1.8 times the target, and more");
    assert!(admits(45, 1), "in time: the overload is over");
    assert!(admits(46, 2));
    assert!(!admits(50, 2), "an interval later");
}

#[test]
fn delay_recovers_with_the_first_in_time() {
    let clock = Virtual::default();
    let service = Duration::from_millis(10);
    let overload = every(service / 2, Duration::ZERO, MINUTE);
    let afterwards = every(service * 2, MINUTE, 2 * MINUTE);
    let outcome =
        play(&limited(&clock), &clock, overload.chain(afterwards), service, Duration::from_millis(1));
    assert!(outcome.refused.len() > 1000);
    assert!(outcome.last_refusal < MINUTE + 4 * TARGET, "{:?}", outcome.last_refusal);
}

#[test]
fn nothing_is_served_above_the_maximum_delay() {
    let policy = QueueDelay::builder(TARGET).clock(Virtual::default()).max_delay(3 * TARGET).build();
    let is_served = |queue_time| policy.admit(&queued(Some(queue_time)).info(), &mut ()).is_ok();
    assert!(is_served(3 * TARGET));
    assert!(!is_served(3 * TARGET + Duration::from_nanos(1)));
    assert!(is_served(3 * TARGET), "which says nothing of others");
}

#[test]
fn unmeasured_connections_are_admitted_and_counted() {
    let policy = QueueDelay::builder(TARGET).max_delay(TARGET).build();
    let other = policy.clone();
    for _ in 0..3 {
        assert!(policy.admit(&queued(None).info(), &mut ()).is_ok());
    }
    assert_eq!(other.unmeasured(), 3);
}

#[test]
fn queue_times_count_measured_connections() {
    let policy = QueueDelay::builder(TARGET).clock(Virtual::default()).max_delay(TARGET).build();
    for queue_time in [Some(0), Some(1), Some(5), Some(7), Some(700), None] {
        let _ = policy.admit(&queued(queue_time.map(Duration::from_millis)).info(), &mut ());
    }
    assert_eq!(policy.clone().queue_times().to_string(), "0: 1, 1: 1, 4+: 2, 512+: 1", "in milliseconds");
}

#[test]
fn longest_delays_are_valid() {
    let longest = QueueDelay::builder(Duration::from_secs(4 * 60)).interval(Duration::from_secs(16 * 60));
    assert_eq!(longest.build().unmeasured(), 0);
}

#[test]
fn invalid_delays_panic_at_once() {
    let broken: [fn() -> QueueDelay; 6] = [
        || QueueDelay::new(Duration::ZERO),
        || QueueDelay::new(Duration::from_secs(3600)),
        || QueueDelay::builder(TARGET).interval(TARGET / 2).build(),
        || QueueDelay::builder(TARGET).interval(Duration::from_secs(3600)).build(),
        || QueueDelay::builder(TARGET).max_delay(TARGET / 2).build(),
        || QueueDelay::new(Duration::MAX),
    ];
    for (n, build) in broken.into_iter().enumerate() {
        assert!(std::panic::catch_unwind(build).is_err(), "{n}");
    }
}
