//! How many connections a second may come in.

use std::fmt;

use super::bell::Bell;
use super::bucket::{Bucket, Token};
use super::clock::{Clock, Monotonic};
use super::gate::WhenFull;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::{Cause, Rejection};
use super::sync::Arc;

/// At most so many new connections a second, over all acceptors that share it. Clones are the same limit.
///
/// When it is used up the connections wait in the kernel's accept queue until the acceptor's timer goes off; or they
/// are refused, if [`when_exceeded`](Self::when_exceeded) says so.
///
/// ```
/// use epoll_acceptor::{Admission, RateLimit, Reserve};
///
/// let rate = RateLimit::per_second(100).burst(2);
/// assert!(matches!(rate.reserve(), Reserve::Room(_)));
/// assert!(matches!(rate.reserve(), Reserve::Room(_)));
/// let Reserve::NotBefore(wait) = rate.reserve() else { panic!() };
/// assert!(wait <= std::time::Duration::from_millis(10));
/// ```
///
/// ## A refusal by another policy returns the token
///
/// So only those who come in are counted.
pub struct RateLimit<C = Monotonic> {
    bucket: Arc<Bucket>,
    per_second: u32,
    when_exceeded: WhenFull,
    clock: C,
}

/// A token of a [`RateLimit`]; used up when dropped. To be [cancelled](Admission::cancel) with the limit that gave it,
/// and only if nobody came in with it.
#[derive(Debug)]
#[must_use = "a token that is dropped is used up"]
pub struct RatePermit(Token);

impl RateLimit {
    /// At most so many a second; at once as many as come in 50 ms, or one.
    ///
    /// # Panics
    ///
    /// If it is 0: a rate of nothing is a gate with the limit 0, or a pause.
    #[must_use]
    pub fn per_second(rate: u32) -> Self {
        Self::with_clock(rate, Monotonic)
    }
}

impl<C: Clock> RateLimit<C> {
    /// As [`per_second`](RateLimit::per_second), by this clock.
    ///
    /// # Panics
    ///
    /// If the rate is 0.
    #[must_use]
    pub fn with_clock(rate: u32, clock: C) -> Self {
        assert!(
            rate > 0,
            "a rate of 0 never lets anybody in: pause the acceptor, or take a Gate with the limit 0"
        );
        let bucket = Arc::new(Bucket::new(rate, rate / 20));
        Self { bucket, per_second: rate, when_exceeded: WhenFull::Pause, clock }
    }

    /// A new limit with so many at once; at least those that come in a millisecond, since no timer here is finer.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[must_use]
    pub fn burst(self, connections: u32) -> Self {
        assert!(connections > 0, "a burst of 0 never lets anybody in: take 1 or more");
        let burst = connections.max(self.per_second.div_ceil(1000));
        Self { bucket: Arc::new(Bucket::new(self.per_second, burst)), ..self }
    }

    /// The same limit, with this answer for connections that exceed it.
    #[must_use]
    pub fn when_exceeded(self, when_exceeded: WhenFull) -> Self {
        Self { when_exceeded, ..self }
    }
}

impl<C: Clock> Admission for RateLimit<C> {
    type Permit = RatePermit;

    fn reserve(&self) -> Reserve<RatePermit> {
        match (self.bucket.take(self.clock.now()), &self.when_exceeded) {
            (Ok(token), _) => Reserve::Room(RatePermit(token)),
            (Err(wait), WhenFull::Pause) => Reserve::NotBefore(wait),
            (Err(_), WhenFull::Shed(refusal)) => Reserve::Shed(Rejection::new(Cause::Rate, refusal.clone())),
        }
    }

    fn never_waits(&self) -> bool {
        matches!(self.when_exceeded, WhenFull::Shed(_))
    }

    fn cancel(&self, RatePermit(token): RatePermit) {
        self.bucket.put_back(&token, self.clock.now());
    }

    /// Nobody stands in line for time.
    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        until.without_a_line()
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<RatePermit> {
        None
    }
}

impl<C: Clone> Clone for RateLimit<C> {
    fn clone(&self) -> Self {
        Self {
            bucket: Arc::clone(&self.bucket),
            per_second: self.per_second,
            when_exceeded: self.when_exceeded.clone(),
            clock: self.clock.clone(),
        }
    }
}

impl<C> fmt::Debug for RateLimit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("per_second", &self.per_second)
            .field("when_exceeded", &self.when_exceeded)
            .finish_non_exhaustive()
    }
}
