//! The promises, checked for the acceptors of this crate on the simulated kernel.
//!
//! * P1 no strand: nobody sleeps with connections queued, room for them, and no alarm set; at the end, with no new
//!   client, everyone who was queued has been served.
//! * P2 no spin: with nothing new to do everyone falls asleep within a bounded number of wake-ups.
//! * P3 limit: no place is given out while as many as the limit are; nobody comes in faster than the rate.
//! * P4 permits: at the end no place is out; none is given back twice.
//! * P5 once: every connection taken is delivered or refused, and none is left open; nobody is refused who might wait, and
//!   nobody delivered whom a policy did not let in.
//! * P6 budget: no pass makes more attempts.
//! * P7 errors: a dead listener is told once, and never tried again; no other errno ends anything.
//! * P8 counters: what the acceptor says of itself is what was seen through the seam, and it balances.
//! * P9 commands: after a pause or a stop at most one attempt, which was under way; who is stopped stays stopped.
//! * P10 hand-over: what arrived was taken, lost to others, or is still queued.
//! * P11 progress: P1 for each of several acceptors on one gate; and whoever stands in line has one of the next places that
//!   come back, as many as there are acceptors (more by what a low-water mark keeps free).
//! * P12 order: connections are delivered in the order in which they were taken.
//! * P13 any exit: all of this for every way of leaving the loop.
//! * P14 no wasted accept: left alone with its clients, no acceptor calls accept on an empty queue.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` widens every bound.

mod cases;
mod closing;
mod composing;
mod exclusive;
mod exhaustive;
mod facts;
mod faulty;
mod found;
mod gate;
mod hosted;
mod overload;
mod panics;
mod peers;
mod persistent;
mod policies;
mod random;
mod rate;
mod replay;

use std::io::Write;

/// Whether the wide bounds were asked for.
fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

/// Says what was covered, past the harness's capture.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
