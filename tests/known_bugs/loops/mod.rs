//! Accept loops with one fault each.

pub(crate) mod strand;
pub(crate) mod exclusive;
pub(crate) mod races;
pub(crate) mod spin;
pub(crate) mod permits;
pub(crate) mod states;
