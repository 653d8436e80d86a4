//! What the kernel's rules make of exclusive registrations: nobody's published faults, but the ways to write this one.

use super::{Row, row};

const RULES: &str = "K25, K71";

pub(crate) const EXCLUSIVE: &[Row] = &[
    row("E1", RULES, "Who was told is paused and deletes its registration: the kernel tells nobody else."),
    row("E2", RULES, "Who was told is full, and the others have room."),
    row("E3", RULES, "Who was told is stopped."),
    row("E4", RULES, "Who was told is dropped, and its destructor only deregisters."),
    row("E5", "K25, K70", "It announces and then leaves: who comes in between is told to it alone."),
    row(
        "E6",
        "K15",
        "It masks itself by a modification, which the kernel refuses of an exclusive registration.",
    ),
    row("E7", "K70", "Who cannot accept announces and stays: it tells itself, too."),
];
