//! The question an acceptor asks before it takes a connection: is there room for one more?

use super::bell::Bell;
use super::refusal::Refusal;
use super::sync::Arc;

/// Who may come in, asked before each accept.
///
/// ## The order is the promise
///
/// An acceptor that finds no room falls asleep in this order: it looks whether anything waits, tells the kernel
/// to be silent, and then stands in [line](Admission::stand) *with a re-check*. Room made before the re-check is
/// seen by it; room made after it rings. A policy that answers [`Reserve::Full`] and then loses the bell it was
/// given strands every client of that acceptor.
pub trait Admission: Send + Sync {
    /// The place of one connection; dropping it gives the place back.
    type Permit;

    /// Takes a place for a connection that is about to be accepted.
    fn reserve(&self) -> Reserve<Self::Permit>;

    /// Whether it never answers [`Reserve::Full`]. Then the connection is accepted first and a place asked for
    /// second, so that no place is held for nobody and no client refused for want of one that is.
    fn never_waits(&self) -> bool {
        false
    }

    /// Takes back a place that was reserved and not used, because nothing was accepted.
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
}

/// The answer of [`Admission::reserve`].
#[derive(Debug)]
pub enum Reserve<P> {
    /// There is room: the connection comes in with this permit.
    Room(P),
    /// There is none: leave the connections to the kernel's queue.
    Full,
    /// There is none: take the connection and refuse it.
    Shed(Refusal),
}

/// What an acceptor in line waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Until {
    /// Room for one more. Looked for once more before it is settled that one waits.
    Room,
    /// Anything given back: a place, and so perhaps a descriptor.
    Release,
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
        match until {
            Until::Room => Line::Room,
            Until::Release => Line::Standing,
        }
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}
