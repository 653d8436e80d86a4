//! The question an acceptor asks before it takes a connection: is there room for one more?

use std::time::Duration;

use super::bell::Bell;
use super::both::Both;
use super::newcomer::ConnectionInfo;
use super::refusal::Rejection;
use super::sync::Arc;

/// Who may come in, asked in two phases: before each accept whether there is room ([`reserve`](Self::reserve)), and
/// after it whether this one may have it ([`admit`](Self::admit)). [`and`](Self::and) puts several policies together.
///
/// ## The order is the promise
///
/// An acceptor that finds no room falls asleep in this order: it looks whether anything waits, tells the kernel
/// to be silent, and then stands in [line](Admission::stand) *with a re-check*. Room made before the re-check is
/// seen by it; room made after it rings. A policy that answers [`Reserve::Full`] and then loses the bell it was
/// given strands every client of that acceptor.
/// ## Test it
///
/// What goes wrong in a policy goes wrong between two system calls. The feature `sim` has everything happen at every
/// such point: [the guide to testing](crate::guide::testing) has a policy that makes clients wait, and its test.
///
/// # Examples
///
/// A policy that looks at who comes, and makes nobody wait:
///
/// ```
/// use std::net::SocketAddr;
/// use std::sync::Arc;
/// use epoll_acceptor::admission::Bell;
/// use epoll_acceptor::{Admission, Cause, Rejection, Gate, Line, ConnectionInfo, Refusal, Reserve, Until};
///
/// /// Lets in who comes from this machine.
/// #[derive(Clone)]
/// struct Local;
///
/// impl Admission for Local {
///     type Permit = ();
///
///     fn reserve(&self) -> Reserve<()> {
///         Reserve::Room(())
///     }
///
///     fn never_waits(&self) -> bool {
///         true
///     }
///
///     fn wants_peer(&self) -> bool {
///         true
///     }
///
///     fn admit(&self, newcomer: &dyn ConnectionInfo, (): &mut ()) -> Result<(), Rejection> {
///         match newcomer.peer() {
///             Some(peer) if peer.ip().is_loopback() => Ok(()),
///             _ => Err(Rejection::new(Cause::Policy, Refusal::Reset)),
///         }
///     }
///
///     fn cancel(&self, (): ()) {}
///
///     fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
///         until.without_a_line()
///     }
///
///     fn leave(&self, _: &Arc<Bell>) -> Option<()> {
///         None
///     }
/// }
///
/// struct From(SocketAddr);
///
/// impl ConnectionInfo for From {
///     fn peer(&self) -> Option<SocketAddr> {
///         Some(self.0)
///     }
/// }
///
/// assert!(Local.admit(&From(([127, 0, 0, 1], 80).into()), &mut ()).is_ok());
/// assert!(Local.admit(&From(([192, 0, 2, 1], 80).into()), &mut ()).is_err());
/// let policy = Gate::new(100).and(Local); // and a limit besides
/// # let _ = policy;
/// ```
pub trait Admission: Send + Sync {
    /// What a connection holds for as long as it lives. Where that is a place, dropping it gives the place back; a
    /// token of a rate is used up, and time brings the next.
    type Permit;

    /// Takes a place for a connection that is about to be accepted.
    fn reserve(&self) -> Reserve<Self::Permit>;

    /// Whether it never answers [`Reserve::Full`] nor [`Reserve::NotBefore`]. Then the connection is accepted first and
    /// a place asked for second, so that no place is reserved while nobody is there to use it.
    fn never_waits(&self) -> bool {
        false
    }

    /// Lets a connection in that was accepted with this permit, or not. The permit may be filled in with what is known
    /// only now.
    ///
    /// # Errors
    ///
    /// How the connection is refused. The permit is [cancelled](Self::cancel) when it has been closed.
    #[inline]
    fn admit(&self, newcomer: &dyn ConnectionInfo, permit: &mut Self::Permit) -> Result<(), Rejection> {
        let _ = (newcomer, permit);
        Ok(())
    }

    /// Whether [`admit`](Self::admit) will ask for the peer's address. It is then got with the accept itself, which
    /// costs less than to ask later, and works for connections that have been reset.
    #[inline]
    fn wants_peer(&self) -> bool {
        false
    }

    /// Takes back a place that was reserved and not used, because nothing was accepted, or what was accepted was
    /// refused.
    ///
    /// Unlike a drop of the permit this frees no descriptor: it rings those who wait for room, and not those
    /// who wait for anything at all to be given back ([`Until::Release`]). Otherwise two acceptors out of
    /// descriptors would keep each other awake with places that neither can use.
    fn cancel(&self, permit: Self::Permit);

    /// Puts the owner behind `bell` in line. Standing twice is standing once, and asks whether the wait is over.
    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line;

    /// Takes the owner behind `bell` out of the line, if it stands there. A place that was handed over to it comes
    /// with it.
    #[must_use = "a place that was handed over is for the next in line: `cancel` it"]
    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit>;

    /// As [`leave`](Self::leave), when the turn of this owner has come: what is said to it now. `None` if no place was
    /// kept after all. A policy of several parts answers [`Reserve::NotBefore`] if a part has no use for the place that
    /// another kept, which goes to the next in line; to ask anew at once would be to stand behind that one again, and
    /// both would pass the place to and fro.
    #[inline]
    fn fetch(&self, bell: &Arc<Bell>) -> Option<Reserve<Self::Permit>> {
        self.leave(bell).map(Reserve::Room)
    }

    /// This policy and another: who may come in must be let in by both.
    ///
    /// ```
    /// use epoll_acceptor::{Admission, Gate, RateLimit};
    ///
    /// let gate = Gate::new(10_000);
    /// let policy = gate.clone().and(RateLimit::per_second(500));
    /// # let _ = policy;
    /// ```
    ///
    /// ## Order
    ///
    /// Put what refuses by who comes before what uses something up: whoever the first does not admit is not seen by the
    /// second.
    ///
    /// And put a gate before a rate: whoever looks at a full gate has taken a token of the rate by then, for as long as
    /// that takes, and another that looks meanwhile waits for the next.
    ///
    /// ## One limit stands in a policy once
    ///
    /// A gate, or a rate with a burst of 1, that is put together with itself has to give two places or tokens to each
    /// connection, and perhaps never has two.
    ///
    /// ## Two gates, and no line for both
    ///
    /// An acceptor that two policies keep waiting stands in one line at a time, and never holds a place of one while it
    /// waits for the other. So it cannot block anybody; but the promise of a line, one of the next n places, is each
    /// gate's own and not that of both together.
    fn and<B: Admission>(self, other: B) -> Both<Self, B>
    where
        Self: Sized,
    {
        Both::new(self, other)
    }
}

/// The answer of [`Admission::reserve`].
#[derive(Debug)]
#[must_use = "a place that is dropped is given back, or used up"]
pub enum Reserve<P> {
    /// There is room: the connection comes in with this permit.
    Room(P),
    /// There is none: leave the connections to the kernel's queue.
    Full,
    /// Not before this time has passed: leave the connections to the kernel's queue until then. What is shorter than a
    /// millisecond counts as one.
    NotBefore(Duration),
    /// There is none: take the connection and refuse it.
    Shed(Rejection),
}

/// What an acceptor in line waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Until {
    /// Room for one more: `stand` checks for room once more before it queues the caller.
    Room,
    /// Anything given back: a place, and so perhaps a descriptor.
    Release,
}

impl Until {
    /// The answer of [`Admission::stand`] for a policy in which nobody stands in line: one that never answers
    /// [`Reserve::Full`].
    pub const fn without_a_line(self) -> Line {
        match self {
            Self::Room => Line::Room,
            Self::Release => Line::Standing,
        }
    }
}

/// The answer of [`Admission::stand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "`Line::Room` means that nobody will ring"]
pub enum Line {
    /// In line: the bell will be rung.
    Standing,
    /// Room has come up meanwhile: not in line, try again.
    Room,
    /// In line still, and a place is kept: [`leave`](Admission::leave) gives it. A policy that rings whoever waits, and
    /// lets them try anew, never answers this.
    Turn,
}

/// No limit at all. Costs nothing: the permit is `()`.
///
/// An acceptor without limit that runs out of descriptors waits for its own timer alone, since no permit tells
/// it that a connection was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unlimited;

impl Admission for Unlimited {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        Reserve::Room(())
    }

    fn cancel(&self, (): ()) {}

    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        until.without_a_line()
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}
