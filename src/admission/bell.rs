//! The bell: how anyone at all tells the one owner of an acceptor that something has changed.
//!
//! Only the owner touches its registration. Everybody else (a permit dropped on another thread, a control
//! handle, the gate) sets a bit here and rings; the owner wakes, begins a pass, and looks.

use std::fmt;

use super::sync::{AtomicU32, Ordering};

/// Wakes the owner of an acceptor, from any thread.
pub trait Ring: Send + Sync {
    /// Makes the owner's wait return an event with the acceptor's token.
    fn ring(&self);
}

/// What one acceptor shares with everyone who may want its attention.
pub struct Bell {
    bits: AtomicU32,
    ringer: Box<dyn Ring>,
}

/// What was asked of the owner, as its pass finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Somebody rang since the last pass began.
    pub rung: bool,
    /// The owner itself asked for a further pass, which changes nothing for it.
    pub nudged: bool,
    /// `pause` holds.
    pub pause: bool,
    /// `stop` was called; it is for good.
    pub stop: bool,
}

const RUNG: u32 = 1;
const PAUSE: u32 = 2;
const STOP: u32 = 4;
const NUDGED: u32 = 8;

impl Bell {
    /// A bell whose pull is `ringer`, which must not panic: others may stand in line behind it.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn new(ringer: Box<dyn Ring>) -> Self {
        Self::hang(ringer)
    }

    /// What is asked, at the beginning of a pass, which answers the ring.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn answer(&self) -> Wishes {
        self.take()
    }

    pub(crate) fn hang(ringer: Box<dyn Ring>) -> Self {
        Self { bits: AtomicU32::new(0), ringer }
    }

    /// Wakes the owner: the next pass will know that it was rung for.
    ///
    /// The bit comes before the ring, so that the pass which answers the ring sees the bit.
    pub fn ring(&self) {
        self.bits.fetch_or(RUNG, Ordering::AcqRel);
        self.ringer.ring();
    }

    /// Has the owner begin a further pass, for no reason that it could act upon.
    pub(crate) fn nudge(&self) {
        self.bits.fetch_or(NUDGED, Ordering::AcqRel);
        self.ringer.ring();
    }

    /// Asks the owner to stop accepting until [`Bell::resume`].
    pub fn pause(&self) {
        self.bits.fetch_or(PAUSE, Ordering::AcqRel);
        self.ring();
    }

    /// Takes a pause back.
    pub fn resume(&self) {
        self.bits.fetch_and(!PAUSE, Ordering::AcqRel);
        self.ring();
    }

    /// Asks the owner to stop for good.
    pub fn stop(&self) {
        self.bits.fetch_or(STOP, Ordering::AcqRel);
        self.ring();
    }

    /// What is asked, without answering it: for the middle of a pass.
    #[must_use]
    #[inline]
    pub fn wishes(&self) -> Wishes {
        Wishes::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// Whether nothing at all is asked.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.bits.load(Ordering::Acquire) == 0
    }

    /// Whether to pause or to stop.
    #[inline]
    pub(crate) fn commands(&self) -> bool {
        self.bits.load(Ordering::Acquire) & (PAUSE | STOP) != 0
    }

    /// As `answer`.
    #[inline]
    pub(crate) fn take(&self) -> Wishes {
        Wishes::from_bits(self.bits.fetch_and(!(RUNG | NUDGED), Ordering::AcqRel))
    }
}

impl Wishes {
    #[inline]
    const fn from_bits(bits: u32) -> Self {
        Self {
            rung: bits & RUNG != 0,
            nudged: bits & NUDGED != 0,
            pause: bits & PAUSE != 0,
            stop: bits & STOP != 0,
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("wishes", &self.wishes()).finish_non_exhaustive()
    }
}
