//! Refusing connections: the rate limit, and the reserve descriptor.

use std::time::Duration;

use super::accept::{Arrival, Missed};
use super::backend::{Backend, Peek};
use super::core::{AcceptCore, PassEnd};
use super::errno::Errno;
use super::phase::BlockReason;
use super::shutdown::Ending;
use crate::admission::filter::Filter;
use crate::admission::refusal::{Cause, Rejection};
use crate::admission::semaphore::Semaphore;

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    #[cold]
    pub(super) fn accept_to_refuse(&mut self, rejection: &Rejection) -> Missed {
        match self.attempt() {
            Ok(stream) => {
                self.refuse_arrival(stream, rejection);
                self.cancel_permit();
                Missed::Retry
            }
            Err(missed) => missed,
        }
    }

    /// Counts one more refusal. If it used up the rate, nothing is accepted until another refusal is allowed.
    #[cold]
    pub(super) fn has_refused(&mut self) {
        if let Some(rate) = &self.refusal_rate {
            let now = self.shared.now();
            // Always granted: otherwise the previous refusal would have stopped the pass.
            let _ = rate.take(now);
            let wait = rate.wait(now);
            self.refusals_resume_at = (!wait.is_zero()).then(|| now.saturating_add(wait));
        }
        // Last: a subscriber may panic.
        #[cfg(feature = "tracing")]
        self.refusal_log.refused(self.shared.now(), &self.shared.counters);
    }

    /// Checks that another refusal is allowed: whether a connection will be refused is unknown before it is accepted.
    #[cold]
    pub(super) fn may_refuse(&mut self) -> Result<(), PassEnd> {
        let now = self.now();
        let left = self.refusals_resume_at.map_or(Duration::ZERO, |until| until.saturating_sub(now));
        if left.is_zero() || self.refuses_pending() {
            self.refusals_resume_at = None;
            return Ok(());
        }
        Err(PassEnd::Block(BlockReason::Throttled(left)))
    }

    /// Out of descriptors: accepts pending connections with the reserve descriptor and refuses them, within the budget.
    /// Returns the end of the pass if the listener turns out to be closed, with an empty queue.
    #[cold]
    pub(super) fn refuse_when_exhausted(&mut self, errno: Errno) -> Option<PassEnd> {
        let by_shutdown = self.ending.as_ref().and_then(Ending::refuses);
        let (cause, refusal) = match (by_shutdown, &self.config.when_exhausted) {
            (Some(refusal), _) => (Cause::Shutdown, refusal.clone()),
            (_, Some(refusal)) => (Cause::OutOfDescriptors, refusal.clone()),
            _ => return None,
        };
        if !errno.is_descriptors() {
            return None;
        }
        let rejection = Rejection::new(cause, refusal);
        // The errno says nothing about the queue, and an accept on an empty one costs more than a look (K51).
        while self.pass.left > 0
            && self.check_commands(self.notifier.requests()).is_ok()
            && self.may_refuse().is_ok()
            && matches!(self.backend.peek(), Peek::Pending | Peek::ClosedPending)
        {
            if let Missed::End(end) = self.refuse_with_reserve(&rejection)? {
                return matches!(end, PassEnd::ListenerClosed(_)).then_some(end);
            }
        }
        None
    }

    /// Accepts one connection with the reserve descriptor and refuses it; `None` without a reserve, or beyond the
    /// budget.
    pub(super) fn refuse_with_reserve(&mut self, rejection: &Rejection) -> Option<Missed> {
        if self.pass.left == 0 || !self.backend.release_reserve() {
            return None;
        }
        let missed = self.accept_to_refuse(rejection);
        // Another thread may have taken the descriptor: then the end of a later pass opens the reserve.
        self.reserve_fd_missing = !self.backend.make_reserve();
        Some(missed)
    }

    /// Refuses a connection for which nothing was reserved.
    pub(super) fn refuse_arrival(&mut self, stream: B::Stream, rejection: &Rejection) {
        let (backend, counters) = (&self.backend, &self.shared.counters);
        Arrival { backend, counters, stream: Some(stream), peer: &None }.refuse(rejection);
        self.has_refused();
    }
}
