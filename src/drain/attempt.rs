//! One call of accept4, and what its errors mean for the pass.

use super::backend::{Backend, Peek};
use super::core::{AcceptCore, PassEnd};
use super::errno::{Errno, ErrnoClass};
use super::phase::BlockReason;
use super::trigger::EmptyCheck;
use crate::admission::filter::Filter;
use crate::admission::semaphore::Semaphore;

/// The reason why an attempt delivers no connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missed {
    /// There may be another.
    Retry,
    /// The pass is over.
    End(PassEnd),
}

impl From<PassEnd> for Missed {
    fn from(end: PassEnd) -> Self {
        Self::End(end)
    }
}

/// The number of attempts in a row that may fail as *consumed* or *interrupted* before that is treated as exhaustion.
/// Far more than any kernel was seen to return.
const FUTILE_ACCEPTS_MAX: u32 = 64;

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    /// Calls accept4 once: the one place that does, with the one table of its errors (P7, P8).
    #[inline(always)]
    pub(super) fn attempt(&mut self) -> Result<B::Stream, Missed> {
        self.shared.counters.attempts.add();
        self.pass.left -= 1;
        match self.backend.accept(self.config.with_peer.then_some(&mut self.peer)) {
            Ok(stream) => {
                self.pass.took();
                self.backoff.succeeded();
                self.futile_accepts = 0;
                Ok(stream)
            }
            Err(errno) => Err(self.attempt_failed(errno)),
        }
    }

    #[cold]
    fn attempt_failed(&mut self, errno: Errno) -> Missed {
        let class = errno.class();
        self.shared.counters.failed(errno);
        match class {
            ErrnoClass::Consumed | ErrnoClass::Interrupted => {
                self.futile_accepts += 1;
                if class == ErrnoClass::Consumed {
                    self.pass.took();
                }
                if self.futile_accepts < FUTILE_ACCEPTS_MAX {
                    return Missed::Retry;
                }
                // Far too many in a row: another attempt does not help.
                Missed::End(PassEnd::Block(BlockReason::Exhausted(errno)))
            }
            ErrnoClass::Empty if self.draining_closed_listener => {
                Missed::End(PassEnd::ListenerClosed(Some(errno)))
            }
            ErrnoClass::Empty if self.pass.taken == 0 => self.found_nothing(errno),
            ErrnoClass::Empty => Missed::End(PassEnd::Done),
            ErrnoClass::Fatal => Missed::End(PassEnd::ListenerClosed(Some(errno))),
            ErrnoClass::Resource => Missed::End(PassEnd::Block(BlockReason::Exhausted(errno))),
        }
    }

    /// An empty queue that raised an event: looks for a listener that is closed and is reported forever.
    fn found_nothing(&mut self, errno: Errno) -> Missed {
        match self.backend.peek() {
            Peek::ClosedPending => {
                self.drain_closed_listener();
                Missed::Retry
            }
            Peek::Closed => Missed::End(PassEnd::ListenerClosed(None)),
            // Another consumer took it, and the next has arrived. If that goes on, the calls of this process are
            // filtered, and the kernel will report the listener forever (P2).
            Peek::Pending if self.futile_accepts >= FUTILE_ACCEPTS_MAX => {
                self.futile_accepts = 0;
                Missed::End(PassEnd::Block(BlockReason::Exhausted(errno)))
            }
            Peek::Pending => {
                self.futile_accepts += 1;
                Missed::End(PassEnd::Done)
            }
            Peek::Empty => Missed::End(PassEnd::Done),
        }
    }

    /// The listener was shut down with connections pending: accepts them all, and then it is closed.
    #[cold]
    pub(super) fn drain_closed_listener(&mut self) {
        self.draining_closed_listener = true;
        self.empty_check = EmptyCheck::UntilEagain;
        self.pass.until_eagain();
    }
}
