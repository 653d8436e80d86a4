//! The rows: where a fault was published, and what was wrong, in our words.

mod exclusive;
mod servers;
mod limits;
mod rust;

/// One published fault.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    /// Project and number.
    pub(crate) project: &'static str,
    pub(crate) fault: &'static str,
    /// `None`: a mutant refutes it.
    pub(crate) status: Option<Status>,
}

/// The reason why no mutant refutes a fault.
#[derive(Clone, Copy)]
pub(crate) enum Status {
    /// The type or the ownership that forbids it, and the file that shows that, if there is one.
    CannotBeWritten(&'static str, Option<&'static str>),
    /// The reason.
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

const fn row(id: &'static str, project: &'static str, fault: &'static str) -> Row {
    Row { id, project, fault, status: None }
}

impl Row {
    const fn cannot(self, reason: &'static str) -> Self {
        Self { status: Some(Status::CannotBeWritten(reason, None)), ..self }
    }

    const fn cannot_shown(self, reason: &'static str, file: &'static str) -> Self {
        Self { status: Some(Status::CannotBeWritten(reason, Some(file))), ..self }
    }

    const fn out(self, reason: &'static str) -> Self {
        Self { status: Some(Status::OutOfScope(reason)), ..self }
    }
}
