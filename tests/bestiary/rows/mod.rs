//! The rows: who published the fault, and what was wrong, in our words.

mod exclusive;
mod servers;
mod limits;
mod rust;

/// One published fault.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    /// Project and number.
    pub(crate) whose: &'static str,
    pub(crate) fault: &'static str,
    /// `None`: there is a mutant.
    pub(crate) place: Option<Place>,
}

/// Where a fault has its place that no mutant stands for.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The type or the ownership that forbids it, and the file that shows it, if it can be shown.
    CannotBeWritten(&'static str, Option<&'static str>),
    /// Why not.
    OutOfScope(&'static str),
}

pub(crate) const CHAPTERS: &[(&str, &[Row])] = &[
    ("Servers: stranded", servers::STRANDED),
    ("Servers: spinning", servers::SPINNING),
    ("Servers: counters, permits, descriptors", limits::COUNTED),
    ("Servers: starvation, states, hand-over", limits::STATES),
    ("Rust: accept loops and epoll wrappers", rust::RUST),
    ("Exclusive registrations: ways to leave", exclusive::EXCLUSIVE),
];

const fn row(id: &'static str, whose: &'static str, fault: &'static str) -> Row {
    Row { id, whose, fault, place: None }
}

impl Row {
    const fn cannot(self, why: &'static str) -> Self {
        Self { place: Some(Place::CannotBeWritten(why, None)), ..self }
    }

    const fn cannot_shown(self, why: &'static str, by: &'static str) -> Self {
        Self { place: Some(Place::CannotBeWritten(why, Some(by))), ..self }
    }

    const fn out(self, why: &'static str) -> Self {
        Self { place: Some(Place::OutOfScope(why)), ..self }
    }
}
