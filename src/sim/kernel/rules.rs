//! The decisions of the kernel, one function each.
//!
//! They are the methods of a trait so that a test can override one of them with a wrong decision and show that the
//! comparison with the real kernel notices. There is no other reason to implement it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;

use super::errno::{EAGAIN, EINVAL};
use super::{Errno, Family, Fd, Mask, Shut, Thread};

/// What a scan does with a registration after reporting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterReport {
    /// Appends it to the ready list: level-triggered.
    Requeue,
    /// Removes it from the ready list until the next wakeup: edge-triggered.
    Leave,
    /// Removes it from the ready list and ignores wakeups until it is modified: one-shot.
    Disarm,
}

/// The rules of the model. Every default is what Linux does; K-numbers refer to
/// [the kernel's rules](crate::guide::kernel).
pub trait Rules: Copy + Eq + Hash + Debug + Send + Sync + 'static {
    /// K2. Returns the key with which an arrival wakes the listener's wait queue.
    #[must_use]
    fn arrival_key() -> Mask {
        Mask::READABLE | Mask::PRI | Mask::RDBAND
    }

    /// K2, K11. Returns whether a wakeup with this key reaches a registration: the key is empty or intersects
    /// the mask, and the registration is not a one-shot that has fired.
    #[must_use]
    fn matches_key(mask: Mask, key: Mask) -> bool {
        mask.intersects(!Mask::PRIVATE) && (key.is_empty() || key.intersects(mask))
    }

    /// K4. Returns the events that a scan reports, from what the file shows at delivery.
    #[must_use]
    fn reported(readiness: Mask, mask: Mask) -> Mask {
        readiness & mask
    }

    /// K5, K6, K11. Decides what a scan does with a registration that it reported.
    #[must_use]
    fn after_report(mask: Mask) -> AfterReport {
        match mask {
            _ if mask.contains(Mask::ONESHOT) => AfterReport::Disarm,
            _ if mask.contains(Mask::ET) => AfterReport::Leave,
            _ => AfterReport::Requeue,
        }
    }

    /// K9. Returns the ready list after a scan: entries beyond `max` come before requeued ones.
    #[must_use]
    fn after_scan<T>(mut left_over: VecDeque<T>, requeued: VecDeque<T>) -> VecDeque<T> {
        left_over.extend(requeued);
        left_over
    }

    /// K7. Returns whether a wakeup appends a registration to the ready list.
    #[must_use]
    fn links(linked: bool) -> bool {
        !linked
    }

    /// K10. Returns whether `EPOLL_CTL_ADD` polls the file at once.
    #[must_use]
    fn add_polls() -> bool {
        true
    }

    /// K10. Returns whether `EPOLL_CTL_MOD` polls the file at once.
    #[must_use]
    fn modify_polls(_mask: Mask) -> bool {
        true
    }

    /// K12. Returns the events that every registration implies.
    #[must_use]
    fn implied() -> Mask {
        Mask::ERR | Mask::HUP
    }

    /// K13. Returns the descriptor number that identifies a registration, together with the file.
    #[must_use]
    fn identity(fd: Fd) -> Fd {
        fd
    }

    /// K13. Returns whether closing a descriptor removes the registrations of its file.
    #[must_use]
    fn close_deregisters(last: bool) -> bool {
        last
    }

    /// K15. Returns the events and flags that `EPOLLEXCLUSIVE` may be combined with.
    #[must_use]
    fn exclusive_allows() -> Mask {
        Mask::IN | Mask::OUT | Mask::ERR | Mask::HUP | Mask::WAKEUP | Mask::ET | Mask::EXCLUSIVE
    }

    /// K15. Returns whether a registration can be modified.
    #[must_use]
    fn modifiable(mask: Mask) -> bool {
        !mask.contains(Mask::EXCLUSIVE)
    }

    /// K16. Returns the greatest number of links in a chain of epolls. Linux 5.10 allows 5 if the chain is built from
    /// the innermost epoll outwards.
    #[must_use]
    fn nesting_max() -> usize {
        4
    }

    /// K16. Returns whether a wakeup of an inner epoll wakes the outer one.
    #[must_use]
    fn calls_outer(_newly_linked: bool) -> bool {
        true
    }

    /// K17. Removes the thread to wake from an epoll's wait queue. The last to block is at the head.
    fn wake_one(sleepers: &mut VecDeque<Thread>) -> Option<Thread> {
        sleepers.pop_front()
    }

    /// K17. Returns whether a scan that leaves entries on the ready list wakes the next thread.
    #[must_use]
    fn scan_wakes_next() -> bool {
        true
    }

    /// K18. Returns whether a pending signal interrupts a wait that has found this many events.
    #[must_use]
    fn interrupts(events: usize) -> bool {
        events == 0
    }

    /// K21, K25. Returns where a new registration enters its file's wait queue: exclusive ones at the tail, others
    /// at the head.
    #[must_use]
    fn queue_position(exclusive: bool, registered: usize) -> usize {
        if exclusive { registered } else { 0 }
    }

    /// K25. Returns whether an exclusive registration uses up the wakeup that reached it.
    #[must_use]
    fn exclusive_consumes_wakeup(mask: Mask, key: Mask, sleeper: bool) -> bool {
        let direction = key & (Mask::IN | Mask::OUT);
        sleeper && (direction.is_empty() || direction == direction & mask)
    }

    /// K23, K70. Returns the key with which the shutdown of a listener wakes its wait queue.
    #[must_use]
    fn shutdown_key() -> Mask {
        Mask::empty()
    }

    /// K23. Returns the key of the additional, first wakeup when an MPTCP listener is shut down. Linux 6.1 has none.
    #[must_use]
    fn mptcp_shutdown_key() -> Option<Mask> {
        Some(Mask::WRITABLE | Mask::WRBAND)
    }

    /// K23. Returns how many exclusive registrations a shutdown wakes at most; 0 is no limit.
    #[must_use]
    fn shutdown_exclusive_max() -> usize {
        0
    }

    /// K23, K70. Returns whether this shutdown of a listener wakes its wait queue.
    #[must_use]
    fn shutdown_notifies(_how: Shut) -> bool {
        true
    }

    /// K23. Returns whether this shutdown closes a listening socket and resets its queue.
    #[must_use]
    fn shutdown_closes(family: Family, how: Shut) -> bool {
        family != Family::Unix && how.contains(Shut::RD)
    }

    /// K24. Returns the shutdown state that a connection inherits from its listener. Connections of plain TCP
    /// clients to an MPTCP listener inherit none.
    #[must_use]
    fn inherited_shutdown(family: Family, shut: Shut) -> Shut {
        if matches!(family, Family::Tcp4 | Family::Tcp6) { shut } else { Shut::empty() }
    }

    /// K30. Returns how many connections a listener with this backlog queues.
    #[must_use]
    fn capacity(backlog: u32) -> usize {
        backlog as usize + 1
    }

    /// K30. Converts the argument of `listen`: unsigned, and at most `net.core.somaxconn`.
    #[must_use]
    fn backlog(requested: i32) -> u32 {
        u32::try_from(requested).unwrap_or(u32::MAX).min(4096)
    }

    /// K23, K31. Returns whether a listening socket with this shutdown state refuses new connections.
    #[must_use]
    fn refuses(family: Family, shut: Shut) -> bool {
        family == Family::Unix && shut.contains(Shut::RD)
    }

    /// K32. Returns whether a second `listen` keeps the queue.
    #[must_use]
    fn relisten_keeps_queue() -> bool {
        true
    }

    /// K33. Removes the connection to accept from the queue: the oldest.
    fn dequeue<T>(queue: &mut VecDeque<T>) -> Option<T> {
        queue.pop_front()
    }

    /// K34. Returns whether a connection stays queued when its peer closes or resets it.
    #[must_use]
    fn stays_queued() -> bool {
        true
    }

    /// K34. Returns whether only the first read after a reset fails.
    #[must_use]
    fn reset_is_read_once() -> bool {
        true
    }

    /// K34. Returns whether a FIN hides a later reset from reads.
    #[must_use]
    fn fin_hides_reset() -> bool {
        true
    }

    /// K23, K50. Returns the error of an accept from an empty queue.
    #[must_use]
    fn empty_accept_error(_family: Family, listening: bool, _shut: Shut) -> Errno {
        if listening { EAGAIN } else { EINVAL }
    }

    /// K51. Returns whether accept checks the descriptor table before the queue.
    #[must_use]
    fn descriptor_checked_first() -> bool {
        true
    }

    /// Returns the key with which an eventfd write or a timerfd expiration wakes.
    #[must_use]
    fn notification_key() -> Mask {
        Mask::IN
    }
}

/// The rules of Linux 6.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linux;

impl Rules for Linux {}
