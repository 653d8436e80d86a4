//! Ways to get exclusive registrations wrong, derived from the kernel's rules; not published faults.

use super::{Row, row};

const RULES: &str = "K25, K71";

#[rustfmt::skip]
pub(crate) const EXCLUSIVE: &[Row] = &[
    row("E1", RULES, "The woken acceptor is paused and deletes its registration; the kernel wakes no other."),
    row("E2", RULES, "The woken acceptor is full, others have permits."),
    row("E3", RULES, "The woken acceptor is stopped."),
    row("E4", RULES, "The woken acceptor is dropped; its destructor only deregisters."),
    row("E5", "K25, K70", "Rewakes the others, then deregisters: an arrival in between wakes it alone."),
    row("E6", "K15", "Disarms by `MOD`, which fails for an exclusive registration."),
    row("E7", "K70", "Cannot accept, rewakes and stays registered: wakes itself too."),
];
