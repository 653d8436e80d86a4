//! The decisions of the kernel, one function each, as Linux takes them.
//!
//! The rest of the model is bookkeeping that asks here. They stand in a trait so that a test can tell one of
//! them wrongly and show that the comparison with the real kernel notices; nobody else has a reason to.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;

use super::errno::{EAGAIN, EINVAL};
use super::{Errno, Family, Fd, Mask, Shut, Thread};

/// What becomes of a registration that was just reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterReport {
    /// It goes to the tail of the ready list: level-triggered.
    Requeue,
    /// It leaves the list until it is called again: edge-triggered.
    Leave,
    /// It leaves the list and hears nothing until it is modified: one-shot.
    Disarm,
}

/// The rules that the model keeps. Every default is what Linux does; the numbers are those of
/// [the kernel's rules](crate::guide::kernel).
pub trait Rules: Copy + Eq + Hash + Debug + Send + Sync + 'static {
    /// K2. What an arrival says to the registrations of its listener.
    #[must_use]
    fn arrival_key() -> Mask {
        Mask::READABLE | Mask::PRI | Mask::RDBAND
    }

    /// K2, K11. A registration hears a call that meets its mask, or any call without a key, unless it has
    /// fired.
    #[must_use]
    fn hears(mask: Mask, key: Mask) -> bool {
        mask.intersects(!Mask::PRIVATE) && (key.is_empty() || key.intersects(mask))
    }

    /// K4. What a wait reports is what the file shows at that moment.
    #[must_use]
    fn reported(shown: Mask, mask: Mask) -> Mask {
        shown & mask
    }

    /// K5, K6, K11. What becomes of a registration that was reported.
    #[must_use]
    fn after_report(mask: Mask) -> AfterReport {
        match mask {
            _ if mask.contains(Mask::ONESHOT) => AfterReport::Disarm,
            _ if mask.contains(Mask::ET) => AfterReport::Leave,
            _ => AfterReport::Requeue,
        }
    }

    /// K9. The ready list after a wait: what did not fit comes before what was put back.
    #[must_use]
    fn after_scan<T>(mut left_over: VecDeque<T>, put_back: VecDeque<T>) -> VecDeque<T> {
        left_over.extend(put_back);
        left_over
    }

    /// K7. Whether a call puts a registration on the list that may be there already.
    #[must_use]
    fn links(linked: bool) -> bool {
        !linked
    }

    /// K10. Adding looks at the file at once.
    #[must_use]
    fn add_looks() -> bool {
        true
    }

    /// K10. Modifying looks at the file at once, whatever the trigger.
    #[must_use]
    fn modify_looks(_mask: Mask) -> bool {
        true
    }

    /// K12. What every registration hears, asked for or not.
    #[must_use]
    fn implied() -> Mask {
        Mask::ERR | Mask::HUP
    }

    /// K13. The descriptor number is part of a registration's identity.
    #[must_use]
    fn identity(fd: Fd) -> Fd {
        fd
    }

    /// K13. Closing a descriptor ends the registrations only if it was the file's last one.
    #[must_use]
    fn close_forgets(last: bool) -> bool {
        last
    }

    /// K15. What may be asked for together with `EPOLLEXCLUSIVE`.
    #[must_use]
    fn exclusive_allows() -> Mask {
        Mask::IN | Mask::OUT | Mask::ERR | Mask::HUP | Mask::WAKEUP | Mask::ET | Mask::EXCLUSIVE
    }

    /// K15. Whether a registration can be modified.
    #[must_use]
    fn modifiable(mask: Mask) -> bool {
        !mask.contains(Mask::EXCLUSIVE)
    }

    /// K16. The longest chain of epolls.
    #[must_use]
    fn nesting_max() -> usize {
        4
    }

    /// K16. An outer epoll is called on every inner call, newly linked or not.
    #[must_use]
    fn outer_called(_newly_linked: bool) -> bool {
        true
    }

    /// K17. Which sleeping thread is woken: the queue's head, where the last to sleep stands.
    fn wakes(sleepers: &mut VecDeque<Thread>) -> Option<Thread> {
        sleepers.pop_front()
    }

    /// K17. A wait that leaves something on the ready list wakes the next sleeper.
    #[must_use]
    fn scan_wakes_next() -> bool {
        true
    }

    /// K18. Whether a pending signal ends a wait.
    #[must_use]
    fn interrupts(events: usize) -> bool {
        events == 0
    }

    /// K21, K25. Where a new registration stands among those of its file: plain ones at the head, exclusive
    /// ones at the tail.
    #[must_use]
    fn place(exclusive: bool, registered: usize) -> usize {
        if exclusive { registered } else { 0 }
    }

    /// K25. Whether a call of an exclusive registration uses up the one wake-up of an arrival.
    #[must_use]
    fn exclusive_takes(mask: Mask, key: Mask, sleeper: bool) -> bool {
        let direction = key & (Mask::IN | Mask::OUT);
        sleeper && (direction.is_empty() || direction == direction & mask)
    }

    /// K23, K70. What the shutdown of a listener says to its registrations: nothing, so all hear it.
    #[must_use]
    fn shutdown_key() -> Mask {
        Mask::empty()
    }

    /// K23. What the shutdown of an MPTCP listener says first: that it can be written.
    #[must_use]
    fn mptcp_shutdown_key() -> Mask {
        Mask::WRITABLE | Mask::WRBAND
    }

    /// K23. How many exclusive registrations a shutdown may satisfy; 0 is no limit.
    #[must_use]
    fn shutdown_wakes() -> usize {
        0
    }

    /// K23, K70. Whether shutting a listening socket this way tells its registrations.
    #[must_use]
    fn shutdown_tells(_how: Shut) -> bool {
        true
    }

    /// K23. Whether shutting a listening socket this way ends it, and its queue with it.
    #[must_use]
    fn shutdown_ends(family: Family, how: Shut) -> bool {
        family != Family::Unix && how.contains(Shut::RD)
    }

    /// K24. What an accepted connection has of the shutdown state of its listener; the plain TCP client of an
    /// MPTCP listener nothing.
    #[must_use]
    fn from_env(family: Family, shut: Shut) -> Shut {
        if matches!(family, Family::Tcp4 | Family::Tcp6) { shut } else { Shut::empty() }
    }

    /// K30. How many connections a listener with this backlog queues.
    #[must_use]
    fn capacity(backlog: u32) -> usize {
        backlog as usize + 1
    }

    /// K30. What becomes of the backlog given to listen: unsigned, and at most `net.core.somaxconn`.
    #[must_use]
    fn backlog(asked: i32) -> u32 {
        u32::try_from(asked).unwrap_or(u32::MAX).min(4096)
    }

    /// K23, K31. Whether a listener that was shut in this way refuses new connections though it listens.
    #[must_use]
    fn refuses(family: Family, shut: Shut) -> bool {
        family == Family::Unix && shut.contains(Shut::RD)
    }

    /// K32. Listening anew keeps what is queued.
    #[must_use]
    fn relisten_keeps_queue() -> bool {
        true
    }

    /// K33. Which connection is accepted: the oldest.
    fn dequeue<T>(queue: &mut VecDeque<T>) -> Option<T> {
        queue.pop_front()
    }

    /// K34. A connection stays queued whatever its peer does.
    #[must_use]
    fn stays_queued() -> bool {
        true
    }

    /// K34. A reset is read once, and then the end.
    #[must_use]
    fn reset_is_read_once() -> bool {
        true
    }

    /// K34. After the peer's end of data a reset is not read at all.
    #[must_use]
    fn end_hides_reset() -> bool {
        true
    }

    /// K23, K50. Accept from an empty queue, of a socket that listens or does not.
    #[must_use]
    fn nothing_to_accept(_family: Family, listening: bool, _shut: Shut) -> Errno {
        if listening { EAGAIN } else { EINVAL }
    }

    /// K51. A full descriptor table is found before the queue is looked at.
    #[must_use]
    fn descriptor_comes_first() -> bool {
        true
    }

    /// What a ring (a write to an eventfd) and an alarm (the expiry of a timerfd) say.
    #[must_use]
    fn bell_key() -> Mask {
        Mask::IN
    }
}

/// The rules as Linux 6.18 keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linux;

impl Rules for Linux {}
