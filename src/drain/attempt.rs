//! One call of accept4, and what its errors mean for the pass.

use std::net::SocketAddr;

use super::backend::{Backend, Peek};
use super::core::{AcceptCore, PassEnd};
use super::errno::{Errno, ErrnoClass};
use super::pass::QueueLength;
use super::phase::BlockReason;
use crate::admission::filter::Filter;
use crate::admission::semaphore::Semaphore;

/// The outcome of one attempt to accept.
pub(super) enum Attempt<T> {
    Taken(T),
    Retry,
    Stop(PassEnd),
}

/// The number of attempts in a row that may fail as *consumed* or *interrupted* before that is treated as exhaustion.
/// Far more than any kernel was seen to return.
const FUTILE_ACCEPTS_MAX: u32 = 64;

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    /// Calls accept4 once: the one place that does, with the one table of its errors (P7, P8).
    #[inline]
    pub(super) fn attempt(&mut self) -> Attempt<(B::Stream, Option<SocketAddr>)> {
        self.shared.counters.attempts.add();
        self.pass.left = self.pass.left.saturating_sub(1);
        match self.backend.accept(self.config.with_peer) {
            Ok(taken) => {
                self.pass.took();
                self.backoff.succeeded();
                self.futile_accepts = 0;
                Attempt::Taken(taken)
            }
            Err(errno) => self.attempt_failed(errno),
        }
    }

    #[cold]
    fn attempt_failed<T>(&mut self, errno: Errno) -> Attempt<T> {
        let class = errno.class();
        self.shared.counters.failed(errno);
        match class {
            ErrnoClass::Consumed | ErrnoClass::Interrupted => {
                self.futile_accepts += 1;
                if class == ErrnoClass::Consumed {
                    self.pass.took();
                }
                if self.futile_accepts < FUTILE_ACCEPTS_MAX {
                    return Attempt::Retry;
                }
                // Far too many in a row: another attempt does not help.
                Attempt::Stop(PassEnd::Block(BlockReason::Exhausted(errno)))
            }
            ErrnoClass::Empty if self.draining_closed_listener => {
                Attempt::Stop(PassEnd::ListenerClosed(Some(errno)))
            }
            ErrnoClass::Empty if self.pass.taken == 0 => self.found_nothing(errno),
            ErrnoClass::Empty => Attempt::Stop(PassEnd::Done),
            ErrnoClass::Fatal => Attempt::Stop(PassEnd::ListenerClosed(Some(errno))),
            ErrnoClass::Resource => Attempt::Stop(PassEnd::Block(BlockReason::Exhausted(errno))),
        }
    }

    /// An empty queue that raised an event: looks for a listener that is closed and is reported forever.
    fn found_nothing<T>(&mut self, errno: Errno) -> Attempt<T> {
        match self.backend.peek() {
            Peek::ClosedPending => {
                self.drain_closed_listener();
                Attempt::Retry
            }
            Peek::Closed => Attempt::Stop(PassEnd::ListenerClosed(None)),
            // Another consumer took it, and the next has arrived. If that goes on, the calls of this process are
            // filtered, and the kernel will report the listener forever (P2).
            Peek::Pending if self.futile_accepts >= FUTILE_ACCEPTS_MAX => {
                self.futile_accepts = 0;
                Attempt::Stop(PassEnd::Block(BlockReason::Exhausted(errno)))
            }
            Peek::Pending => {
                self.futile_accepts += 1;
                Attempt::Stop(PassEnd::Done)
            }
            Peek::Empty => Attempt::Stop(PassEnd::Done),
        }
    }

    /// The listener was shut down with connections pending: accepts them all, and then it is closed.
    #[cold]
    pub(super) fn drain_closed_listener(&mut self) {
        self.draining_closed_listener = true;
        self.pass.queue = QueueLength::UntilEagain;
    }
}
