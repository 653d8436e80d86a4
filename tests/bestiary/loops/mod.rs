//! Accept loops with one piece wrong.

pub(crate) mod strand;
pub(crate) mod parting;
pub(crate) mod races;
pub(crate) mod spin;
pub(crate) mod places;
pub(crate) mod states;
