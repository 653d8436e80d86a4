//! A limit on how many connections per second are accepted.

use std::fmt;

use super::clock::{Clock, Monotonic};
use super::connection_info::ConnectionInfo;
use super::filter::{Filter, Reservation};
use super::gate::WhenFull;
use super::gcra::{Gcra, Token};
use super::refusal::{Cause, Rejection};
use super::sync::{Arc, AtomicU32, Ordering};

/// A limit on new connections per second, over all acceptors that share it (GCRA). Clones are the same limit.
///
/// Connections that exceed the rate wait in the kernel's accept queue until the acceptor's timer expires; or they are
/// refused, if [`when_exceeded`](RateLimitBuilder::when_exceeded) says so. A connection that another filter rejects
/// costs no token.
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::filter::Reservation;
/// use epoll_acceptor::{Filter, RateLimit};
///
/// let rate = RateLimit::builder(100).burst(2).build();
/// assert!(matches!(rate.reserve(), Reservation::Granted(_)));
/// assert!(matches!(rate.reserve(), Reservation::Granted(_)));
/// let Reservation::RetryAfter(wait) = rate.reserve() else { panic!() };
/// assert!(wait <= Duration::from_millis(10));
/// rate.set_rate(1_000); // at any time
/// ```
///
/// ## Resolution
///
/// The acceptor's timer has a resolution of a millisecond: above 1,000 connections per second, the tokens of a
/// millisecond are used in one burst.
#[derive(Clone)]
pub struct RateLimit<C = Monotonic> {
    shared: Arc<Shared>,
    clock: C,
}

struct Shared {
    gcra: Gcra,
    per_second: AtomicU32,
    /// As configured; `None` follows the rate.
    burst: Option<u32>,
    when_exceeded: WhenFull,
}

/// Configures a [`RateLimit`]; made by [`RateLimit::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct RateLimitBuilder<C = Monotonic> {
    per_second: u32,
    burst: Option<u32>,
    when_exceeded: WhenFull,
    clock: C,
}

/// The token of a connection; used up when dropped.
#[derive(Debug)]
#[must_use = "a token that is dropped is used up"]
pub struct RatePermit(Option<Token>);

impl RateLimit {
    /// Creates a limit of `rate` connections per second, with a burst of 50 ms' worth of connections, at least one.
    ///
    /// # Panics
    ///
    /// If `rate` is 0. To accept nothing, pause the acceptor or use a [`Gate`](crate::Gate) with the limit 0.
    #[must_use]
    pub fn per_second(rate: u32) -> Self {
        Self::builder(rate).build()
    }

    /// Configures a limit of `rate` connections per second.
    ///
    /// # Panics
    ///
    /// As [`per_second`](Self::per_second).
    pub fn builder(rate: u32) -> RateLimitBuilder {
        check_rate(rate);
        RateLimitBuilder { per_second: rate, burst: None, when_exceeded: WhenFull::Wait, clock: Monotonic }
    }
}

impl<C> RateLimit<C> {
    /// Changes the rate for all handles.
    ///
    /// # Panics
    ///
    /// If `rate` is 0.
    pub fn set_rate(&self, rate: u32) {
        check_rate(rate);
        self.shared.per_second.store(rate, Ordering::Relaxed);
        self.shared.gcra.set(rate, burst(rate, self.shared.burst));
    }

    /// Returns the rate, in connections per second.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.shared.per_second.load(Ordering::Relaxed)
    }
}

impl<C> RateLimitBuilder<C> {
    /// Allows a burst of `connections`, or a millisecond's worth if that is more: the timer is no finer.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn burst(mut self, connections: u32) -> Self {
        assert!(connections > 0, "a burst must be at least 1");
        self.burst = Some(connections);
        self
    }

    /// Sets what becomes of connections that exceed the rate; by default they wait.
    pub fn when_exceeded(mut self, when_exceeded: WhenFull) -> Self {
        self.when_exceeded = when_exceeded;
        self
    }

    /// Reads the time from `clock`, for tests.
    pub fn clock<D: Clock>(self, clock: D) -> RateLimitBuilder<D> {
        let Self { per_second, burst, when_exceeded, .. } = self;
        RateLimitBuilder { per_second, burst, when_exceeded, clock }
    }

    /// Creates the limit.
    #[must_use]
    pub fn build(self) -> RateLimit<C> {
        let shared = Shared {
            gcra: Gcra::new(self.per_second, burst(self.per_second, self.burst)),
            per_second: AtomicU32::new(self.per_second),
            burst: self.burst,
            when_exceeded: self.when_exceeded,
        };
        RateLimit { shared: Arc::new(shared), clock: self.clock }
    }
}

fn check_rate(rate: u32) {
    assert!(rate > 0, "a rate must be at least 1: pause the acceptor, or take a Gate with the limit 0");
}

fn burst(rate: u32, configured: Option<u32>) -> u32 {
    configured.map_or(rate / 20, |burst| burst.max(rate.div_ceil(1000)))
}

impl<C: Clock> Filter for RateLimit<C> {
    type Permit = RatePermit;

    fn reserve(&self) -> Reservation<RatePermit> {
        // A limit that refuses takes the token after the accept: a token reserved for an empty queue would make another
        // acceptor refuse a client.
        if self.shared.when_exceeded != WhenFull::Wait {
            return Reservation::Granted(RatePermit(None));
        }
        match self.shared.gcra.take(self.clock.now()) {
            Ok(token) => Reservation::Granted(RatePermit(Some(token))),
            Err(wait) => Reservation::RetryAfter(wait),
        }
    }

    fn admit(&self, _: &ConnectionInfo<'_>, permit: &mut RatePermit) -> Result<(), Rejection> {
        let WhenFull::Shed(refusal) = &self.shared.when_exceeded else { return Ok(()) };
        match self.shared.gcra.take(self.clock.now()) {
            Ok(token) => permit.0 = Some(token),
            Err(_) => return Err(Rejection::new(Cause::Rate, refusal.clone())),
        }
        Ok(())
    }

    fn cancel(&self, RatePermit(token): RatePermit) {
        if let Some(token) = token {
            self.shared.gcra.put_back(&token, self.clock.now());
        }
    }
}

impl<C> fmt::Debug for RateLimit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("per_second", &self.rate())
            .field("when_exceeded", &self.shared.when_exceeded)
            .finish_non_exhaustive()
    }
}
