//! The next step of a hosted acceptor. Pure: the caller polls the inner epoll.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`"))]

use super::acceptor::{Acceptor, Sealed};
use super::state::ListenerClosed;
use crate::admission::connection::Connection;
use crate::admission::permit::Permit;

/// The result of [`Hosted::poll_accept`](crate::Hosted::poll_accept).
#[derive(Debug)]
#[must_use = "a connection that is dropped is closed; an event loop may sleep after `Idle` only"]
pub enum Progress<S, P = Permit> {
    /// A connection. Call again: there may be more.
    Connection(Connection<S, P>),
    /// A pass is over; there may be more. Let other work run, then call again.
    Yield,
    /// Nothing is pending: clear the readiness that was seen before this call, and sleep.
    Idle,
    /// The acceptor was stopped, or its graceful shutdown has ended: it will never accept again.
    Stopped,
    /// The listener is closed. Reported once; `Stopped` follows.
    ListenerClosed(ListenerClosed),
}

/// An acceptor and its open pass. Public behind `sim`; not covered by semantic versioning.
///
/// A pass is kept open between calls, so that taking connections one by one does not cost a pass for each. That is safe
/// only because nothing else waits on the inner epoll: a wait in the middle of a pass would consume an event that needs
/// a pass of its own.
#[derive(Debug)]
pub struct Poller<A> {
    acceptor: A,
    next: Next,
    polls: u64,
    idle_polls: u64,
}

/// What the next call does.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Polls the inner epoll, and begins a pass if there is an event.
    Poll,
    /// As [`Poll`](Self::Poll); but the owner has slept, and most probably an arrival woke it. So the pass begins at
    /// once, and the poll that follows each pass finds everything else.
    AfterSleep,
    /// Goes on with the open pass.
    Advance,
    /// Nothing: it will never accept again.
    Stopped,
}

impl<A: Acceptor> Poller<A> {
    /// Wraps an acceptor, before its first pass.
    pub const fn new(acceptor: A) -> Self {
        Self { acceptor, next: Next::Poll, polls: 0, idle_polls: 0 }
    }

    /// Returns the next connection, or the reason why there is none. `poll` waits on the inner epoll with timeout zero,
    /// and returns whether there was an event.
    ///
    /// # Errors
    ///
    /// Those of `poll`.
    pub fn poll_accept<E>(
        &mut self,
        poll: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Progress<A::Stream, A::Permit>, E> {
        // `Poll` while this runs: if a filter panics, the next call polls and begins another pass.
        match std::mem::replace(&mut self.next, Next::Poll) {
            Next::Advance => {}
            Next::Stopped => {
                self.next = Next::Stopped;
                return Ok(Progress::Stopped);
            }
            Next::AfterSleep if self.acceptor.expects_arrival(Sealed::HOST) => {
                self.acceptor.begin(false, Sealed::HOST);
            }
            Next::Poll | Next::AfterSleep => {
                self.polls += 1;
                if !poll()? {
                    self.idle_polls += 1;
                    self.next = Next::AfterSleep;
                    return Ok(Progress::Idle);
                }
                self.acceptor.begin(false, Sealed::HOST);
            }
        }
        let (next, progress) = match self.acceptor.advance(Sealed::HOST) {
            Some(Ok(connection)) => (Next::Advance, Progress::Connection(connection)),
            Some(Err(closed)) => (Next::Stopped, Progress::ListenerClosed(closed)),
            None if self.acceptor.state().is_terminal() => (Next::Stopped, Progress::Stopped),
            None => (Next::Poll, Progress::Yield),
        };
        self.next = next;
        Ok(progress)
    }

    /// Returns how often the inner epoll was polled.
    pub const fn polls(&self) -> u64 {
        self.polls
    }

    /// Returns how often such a poll found no event.
    pub const fn idle_polls(&self) -> u64 {
        self.idle_polls
    }

    /// Returns whether a pass is open: the next call goes on with it.
    #[cfg(feature = "sim")]
    pub const fn is_in_pass(&self) -> bool {
        matches!(self.next, Next::Advance)
    }

    /// Returns the acceptor.
    pub const fn acceptor(&self) -> &A {
        &self.acceptor
    }

    /// Returns the acceptor, between two calls.
    pub const fn acceptor_mut(&mut self) -> &mut A {
        &mut self.acceptor
    }

    /// Returns the acceptor; an open pass ends when the next one begins.
    pub fn into_acceptor(self) -> A {
        self.acceptor
    }
}
