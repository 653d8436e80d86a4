//! Filters: which connections are accepted, and how fast.

use std::time::Duration;

use super::connection_info::ConnectionInfo;
use super::refusal::Rejection;
use super::sync::Arc;

/// Decides which connections are accepted, before the accept ([`reserve`](Self::reserve)) and after it
/// ([`admit`](Self::admit)).
///
/// A filter never waits. It can delay all connections for a time, or reject; only the [`Gate`](crate::Gate) has a wait
/// queue. So no filter can strand a client, whatever it returns. If it panics after the accept, the connection is
/// closed and its permit is released.
///
/// Add filters with [`Builder::filter`](crate::Builder::filter); all of them must admit a connection. Put a filter that
/// rejects by the peer before one that uses something up, such as a [`RateLimit`](crate::RateLimit): what the first
/// rejects is not counted by the second. Tuples, `Option<F>`, `Arc<F>`, `Box<F>` and `&F` are filters.
///
/// To decide by the connection alone, make a filter from a closure with [`filter_fn`].
///
/// A limit on the total number of connections, for a test run:
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use epoll_acceptor::Filter;
/// use epoll_acceptor::filter::{Rejection, Reservation};
///
/// struct AtMost(AtomicU32);
///
/// impl Filter for AtMost {
///     type Permit = ();
///
///     fn reserve(&self) -> Reservation<()> {
///         match self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
///             Ok(_) => Reservation::Granted(()),
///             Err(_) => Reservation::Rejected(Rejection::close()),
///         }
///     }
///
///     fn cancel(&self, (): ()) {
///         self.0.fetch_add(1, Relaxed); // nothing was accepted
///     }
/// }
///
/// let filter = AtMost(AtomicU32::new(1));
/// assert!(matches!(filter.reserve(), Reservation::Granted(())));
/// assert!(matches!(filter.reserve(), Reservation::Rejected(_)));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a filter",
    note = "implement `Filter`, or make a filter of a closure with `filter_fn(|connection| ...)`"
)]
pub trait Filter: Send + Sync {
    /// What a connection holds while it is in service; released when it is dropped.
    type Permit;

    /// Decides before an accept, when nothing is known about the connection.
    fn reserve(&self) -> Reservation<Self::Permit>;

    /// Decides after the accept, when the peer is known; may fill in the permit.
    ///
    /// # Errors
    ///
    /// The [`Rejection`] says how the connection is refused. The permit is [cancelled](Self::cancel) after the close.
    #[inline]
    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut Self::Permit) -> Result<(), Rejection> {
        let _ = (connection, permit);
        Ok(())
    }

    /// Takes back a permit that was not used: nothing was accepted, or the connection was refused.
    #[inline]
    fn cancel(&self, permit: Self::Permit) {
        drop(permit);
    }

    /// Returns whether [`admit`](Self::admit) asks for the peer's address. The address is then read with the accept
    /// itself, which costs less than asking later and works for connections that were reset.
    #[inline]
    fn needs_peer_addr(&self) -> bool {
        false
    }
}

/// No filter: admits every connection.
impl Filter for () {
    type Permit = ();

    #[inline]
    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }
}

/// The answer of [`Filter::reserve`].
#[derive(Debug)]
#[must_use = "a permit that is dropped is released, or used up"]
pub enum Reservation<P> {
    /// Accept the next connection, with this permit.
    Granted(P),
    /// Accept nothing for this long, at least a millisecond; connections wait in the kernel's accept queue.
    RetryAfter(Duration),
    /// Accept the next connection and refuse it.
    Rejected(Rejection),
}

/// A filter's permit that is not used yet: cancelled when dropped, even by a panic.
#[derive(Debug)]
pub(crate) struct Reserved<'a, F: Filter> {
    filter: &'a F,
    permit: Option<F::Permit>,
}

impl<'a, F: Filter> Reserved<'a, F> {
    #[inline]
    pub(crate) const fn new(filter: &'a F, permit: F::Permit) -> Self {
        Self { filter, permit: Some(permit) }
    }

    /// Asks the filter. Returns the permit if it admits the connection.
    #[inline]
    pub(crate) fn admit(&mut self, connection: &ConnectionInfo<'_>) -> Result<F::Permit, Rejection> {
        let permit = self.permit.as_mut().ok_or_else(Rejection::close)?;
        self.filter.admit(connection, permit)?;
        self.permit.take().ok_or_else(Rejection::close)
    }

    #[inline]
    pub(crate) fn into_permit(mut self) -> Option<F::Permit> {
        self.permit.take()
    }
}

impl<F: Filter> Drop for Reserved<'_, F> {
    #[inline]
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.filter.cancel(permit);
        }
    }
}

/// Makes a filter from a closure that decides by the connection.
///
/// ```
/// use std::net::SocketAddr;
/// use epoll_acceptor::filter::{Rejection, TestConnection};
/// use epoll_acceptor::{Filter, filter_fn};
///
/// let local = filter_fn(|connection| match connection.peer() {
///     Some(peer) if peer.ip().is_loopback() => Ok(()),
///     _ => Err(Rejection::reset()),
/// });
///
/// let from = |ip: [u8; 4]| TestConnection { peer: Some((ip, 80).into()), ..TestConnection::default() };
/// assert!(local.admit(&from([127, 0, 0, 1]).info(), &mut ()).is_ok());
/// assert!(local.admit(&from([192, 0, 2, 1]).info(), &mut ()).is_err());
/// ```
pub const fn filter_fn<F>(decide: F) -> FilterFn<F>
where
    F: Fn(&ConnectionInfo<'_>) -> Result<(), Rejection> + Send + Sync,
{
    FilterFn { decide }
}

/// The filter of [`filter_fn`].
#[derive(Clone, Copy)]
pub struct FilterFn<F> {
    decide: F,
}

impl<F> Filter for FilterFn<F>
where
    F: Fn(&ConnectionInfo<'_>) -> Result<(), Rejection> + Send + Sync,
{
    type Permit = ();

    #[inline]
    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    #[inline]
    fn admit(&self, connection: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        (self.decide)(connection)
    }

    #[inline]
    fn needs_peer_addr(&self) -> bool {
        true
    }
}

impl<F> std::fmt::Debug for FilterFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FilterFn")
    }
}

macro_rules! filter_behind {
    ($($pointer:ty),*) => {$(
        impl<F: Filter + ?Sized> Filter for $pointer {
            type Permit = F::Permit;

            #[inline]
            fn reserve(&self) -> Reservation<F::Permit> {
                F::reserve(self)
            }

            #[inline]
            fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut F::Permit) -> Result<(), Rejection> {
                F::admit(self, connection, permit)
            }

            #[inline]
            fn cancel(&self, permit: F::Permit) {
                F::cancel(self, permit);
            }

            #[inline]
            fn needs_peer_addr(&self) -> bool {
                F::needs_peer_addr(self)
            }
        }
    )*};
}

filter_behind!(&F, Arc<F>, Box<F>);
