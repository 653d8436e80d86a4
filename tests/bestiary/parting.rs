//! How one leaves that was told of a queue, and nobody else.

use crate::desk::Why;
use crate::world::World;

/// See above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It goes, and then has the others told: as it should be.
    Announces,
    AnnouncesFirst,
    Silent,
    SilentWhenFull,
    SilentWhenStopped,
    /// It tries to modify its registration, which cannot be, and does not look at the answer.
    Modifies,
    /// It has the others told, and stays.
    Stays,
}

impl Parting {
    /// Leaves for this reason (none: for good), by a call that has the kernel tell of nobody any more.
    pub(crate) fn carry_out(self, world: &dyn World, why: Option<Why>, go: impl FnOnce(&dyn World)) {
        if self == Self::AnnouncesFirst {
            world.announce();
        }
        if !matches!(self, Self::Modifies | Self::Stays) {
            go(world);
        }
        let told = match self {
            Self::Announces | Self::Stays => true,
            Self::SilentWhenFull => why != Some(Why::Full),
            Self::SilentWhenStopped => why.is_some(),
            Self::AnnouncesFirst | Self::Silent | Self::Modifies => false,
        };
        if told {
            world.announce();
        }
    }
}
