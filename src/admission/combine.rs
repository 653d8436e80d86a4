//! Several filters as one: tuples, whose members must all admit a connection, and options.

use super::connection_info::ConnectionInfo;
use super::filter::{Filter, Reservation, Reserved};
use super::refusal::Rejection;

/// `None` admits every connection.
impl<F: Filter> Filter for Option<F> {
    type Permit = Option<F::Permit>;

    fn reserve(&self) -> Reservation<Self::Permit> {
        match self.as_ref().map(F::reserve) {
            None => Reservation::Granted(None),
            Some(Reservation::Granted(permit)) => Reservation::Granted(Some(permit)),
            Some(Reservation::RetryAfter(wait)) => Reservation::RetryAfter(wait),
            Some(Reservation::Rejected(rejection)) => Reservation::Rejected(rejection),
        }
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut Self::Permit) -> Result<(), Rejection> {
        match (self, permit) {
            (Some(filter), Some(permit)) => filter.admit(connection, permit),
            _ => Ok(()),
        }
    }

    fn cancel(&self, permit: Self::Permit) {
        if let (Some(filter), Some(permit)) = (self, permit) {
            filter.cancel(permit);
        }
    }

    fn needs_peer_addr(&self) -> bool {
        self.as_ref().is_some_and(F::needs_peer_addr)
    }
}

macro_rules! filters {
    ($(($name:ident, $permit:ident, $at:tt)),+) => {
        /// All must admit a connection, and are asked in order. While any filter asks to retry later, no connection is
        /// rejected.
        #[allow(non_snake_case, reason = "a variable for each type")]
        impl<$($name: Filter),+> Filter for ($($name,)+) {
            type Permit = ($($name::Permit,)+);

            #[inline]
            fn reserve(&self) -> Reservation<Self::Permit> {
                let mut rejected = None;
                // Every return but the last cancels what was reserved.
                $(
                    let $permit = match self.$at.reserve() {
                        Reservation::Granted(permit) => Some(Reserved::new(&self.$at, permit)),
                        Reservation::RetryAfter(wait) => return Reservation::RetryAfter(wait),
                        Reservation::Rejected(rejection) => {
                            rejected.get_or_insert(rejection);
                            None
                        }
                    };
                )+
                if let Some(rejection) = rejected {
                    return Reservation::Rejected(rejection);
                }
                match ($($permit.and_then(Reserved::into_permit),)+) {
                    ($(Some($permit),)+) => Reservation::Granted(($($permit,)+)),
                    _ => unreachable!("what is not rejected is granted"),
                }
            }

            #[inline]
            fn admit(
                &self,
                connection: &ConnectionInfo<'_>,
                permit: &mut Self::Permit,
            ) -> Result<(), Rejection> {
                $(self.$at.admit(connection, &mut permit.$at)?;)+
                Ok(())
            }

            #[inline]
            fn cancel(&self, permit: Self::Permit) {
                // Cancels all of them, even if one panics.
                $(let $permit = Reserved::new(&self.$at, permit.$at);)+
                $(drop($permit);)+
            }

            #[inline]
            fn needs_peer_addr(&self) -> bool {
                $(self.$at.needs_peer_addr())||+
            }
        }
    };
}

filters!((A, a, 0));
filters!((A, a, 0), (B, b, 1));
filters!((A, a, 0), (B, b, 1), (C, c, 2));
filters!((A, a, 0), (B, b, 1), (C, c, 2), (D, d, 3));
filters!((A, a, 0), (B, b, 1), (C, c, 2), (D, d, 3), (E, e, 4));
filters!((A, a, 0), (B, b, 1), (C, c, 2), (D, d, 3), (E, e, 4), (F, f, 5));
