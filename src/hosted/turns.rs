//! What a host does next. Pure: the look at the inner epoll is the caller's.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`, to be proved there"))]

use crate::admission::connection::Connection;
use crate::drain::acceptor::{Acceptor, Key};
use crate::drain::state::ListenerClosed;

/// What came of one turn; what to do with each is shown at [`Hosted`](super::Hosted).
#[derive(Debug)]
#[must_use = "a connection that is dropped is closed, and a host may sleep after `Quiet` alone"]
pub enum Progress<S, P> {
    /// A connection. There may be more: take another turn.
    Connection(Connection<S, P>),
    /// A pass is over; there may be more. A good moment to let others run, and then to take another turn.
    Yield,
    /// Nothing waits: forget the readiness that was seen before this turn, and sleep until there is more.
    Idle,
    /// The listener is gone; told once, as by [`Ready`](crate::drain::Ready).
    ListenerClosed(ListenerClosed),
    /// The acceptor was stopped or is dead: it will never accept again.
    Stopped,
}

/// An acceptor, its open pass, and whether it is over. Public behind `sim`; not covered by semantic
/// versioning.
///
/// A pass is kept open between turns, so that taking connections one by one costs no pass for each. That is
/// safe only because nobody else waits on the inner epoll: a wait in the middle of a pass would take an event
/// that wants a pass of its own.
#[derive(Debug)]
pub struct Turns<A> {
    acceptor: A,
    in_pass: bool,
    over: bool,
    looks: u64,
    sleeps: u64,
}

impl<A: Acceptor> Turns<A> {
    /// The acceptor, before its first pass.
    pub const fn new(acceptor: A) -> Self {
        Self { acceptor, in_pass: false, over: false, looks: 0, sleeps: 0 }
    }

    /// One turn. `look` waits on the inner epoll with timeout zero, and tells whether there was an event.
    ///
    /// # Errors
    ///
    /// Those of `look`.
    pub fn turn<E>(
        &mut self,
        look: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Progress<A::Stream, A::Permit>, E> {
        if self.over {
            return Ok(Progress::Stopped);
        }
        if !std::mem::take(&mut self.in_pass) {
            self.looks += 1;
            if !look()? {
                self.sleeps += 1;
                return Ok(Progress::Idle);
            }
            self.acceptor.begin(true, Key::HOST);
        }
        // Out of the pass while this runs: if a policy panics, the next turn looks, and begins another.
        Ok(match self.acceptor.advance(Key::HOST) {
            Some(Ok(connection)) => {
                self.in_pass = true;
                Progress::Connection(connection)
            }
            Some(Err(dead)) => {
                self.over = true;
                Progress::ListenerClosed(dead)
            }
            None if self.acceptor.state().is_terminal() => {
                self.over = true;
                Progress::Stopped
            }
            None => Progress::Yield,
        })
    }

    /// How often it looked at the inner epoll.
    pub const fn polls(&self) -> u64 {
        self.looks
    }

    /// How often a look allowed the host to sleep.
    pub const fn idle_polls(&self) -> u64 {
        self.sleeps
    }

    /// The acceptor.
    pub const fn acceptor(&self) -> &A {
        &self.acceptor
    }

    /// The acceptor, between two turns.
    pub const fn acceptor_mut(&mut self) -> &mut A {
        &mut self.acceptor
    }

    /// The acceptor, whatever was open is closed with its next pass.
    pub fn into_acceptor(self) -> A {
        self.acceptor
    }
}
