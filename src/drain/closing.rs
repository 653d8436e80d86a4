//! Winding down: a listener is to be closed, and nobody who is queued is to be reset by that.
//!
//! To accept until the queue is empty and then to close leaves a window, in which whoever comes is reset. So the
//! socket is *barred* first: newcomers are kept out by the kernel, and what is queued stays. Only then does an empty
//! queue mean that all are through, but for TCP handshakes that had begun before; those are waited for a while.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "the seam is public behind `sim`"))]

use std::time::Duration;

use super::acceptor::{Key, Steps};
use super::backend::{Backend, Peek};
use super::core::{Drain, Step};
use super::counters::Counters;
use super::errno::ErrnoClass;
use super::shared::Control;
use super::strategy::Strategy;
use crate::admission::policy::Admission;
use crate::admission::refusal::{Cause, Refusal};

/// What becomes of the connections that are still queued when a listener is wound down:
/// [`EpollAcceptor::wind_down`](crate::linux::EpollAcceptor::wind_down), which has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pending {
    /// They are served, as far as there is time and room, and refused like this then.
    Serve(Refusal),
    /// They are refused like this, at once.
    Refuse(Refusal),
}

/// How far the kernel keeps newcomers out of an accept queue whose content stays.
///
/// # References
///
/// K23 and K79 of [the kernel's rules](crate::guide::kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Intake {
    /// Nobody can be queued any more (Unix sockets).
    Closed,
    /// Nobody can begin a handshake; those that had begun are still queued when they end (TCP).
    HandshakesOnly,
    /// Not at all: the kernel has no means for this socket (MPTCP, vsock).
    Open,
}

/// What became of a listener's last connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Handed to the owner since the winding down began.
    pub served: u64,
    /// Refused since then.
    pub refused: u64,
    /// Gone before they could be taken, since then.
    pub aborted: u64,
    /// Still queued, and so reset by the close, since descriptors or memory had run out. `None` if there were some and
    /// the kernel does not tell how many.
    pub left: Option<u32>,
    /// How far newcomers were kept out meanwhile.
    pub barred: Intake,
}

/// The seam, for the end of a listener.
pub trait Bar: Backend {
    /// Keeps newcomers out, for everyone who holds the socket. What is queued stays acceptable.
    fn bar(&self) -> Intake;

    /// Takes from an accepted connection that is to be served what it inherited of that. [`Backend::refuse`] does so by itself.
    fn unbar(&self, stream: &Self::Stream);
}

/// An acceptor whose listener is to be closed.
#[derive(Debug)]
pub struct WindDown<P: Bar, S: Strategy, A: Admission> {
    drain: Drain<P, S, A>,
    rest: Pending,
    barred: Intake,
    until: Duration,
    settle: Duration,
    /// When the queue was seen empty, with nothing taken from it since, and how much had been taken by then.
    quiet: Option<(Duration, u64)>,
    before: Counters,
    /// How much had been taken at the last look, and whether it was as much at the look before.
    seen: u64,
    stuck: bool,
}

/// How long an empty queue is watched for handshakes that had begun, unless told otherwise: the round trip of nearly
/// every path there is, and less than the first retransmission.
const SETTLE: Duration = Duration::from_millis(250);
/// When it is tried again to refuse those who could not be, for want of descriptors.
const RETRY: Duration = Duration::from_millis(10);
/// How many are refused between two looks at the clock.
const BATCH: u32 = 64;
/// How many are refused at the very end. More than a queue holds, and a bound where newcomers cannot be kept out.
const LAST: u32 = 1 << 16;
/// How many attempts in a row may come to nothing.
const FRUITLESS_MAX: u32 = 64;

impl<P: Bar, S: Strategy, A: Admission> WindDown<P, S, A> {
    /// Bars the listener and begins.
    pub fn begin(mut drain: Drain<P, S, A>, rest: Pending, within: Duration) -> Self {
        let before = drain.control().counters();
        let until = drain.port.now().saturating_add(within);
        let barred = drain.port.bar();
        // Nobody is to be reset for want of a descriptor, if there is one now.
        let _ = drain.port.make_reserve();
        if matches!(rest, Pending::Refuse(_)) && !drain.state.is_terminal() {
            drain.halt();
        }
        Self { drain, rest, barred, until, settle: SETTLE, quiet: None, before, seen: 0, stuck: true }
    }

    /// How long an empty queue is watched for handshakes under way.
    pub fn set_settle(&mut self, settle: Duration) {
        self.settle = settle;
    }

    /// How far newcomers are kept out.
    pub fn barred(&self) -> Intake {
        self.barred
    }

    /// The acceptor.
    pub fn drain(&self) -> &Drain<P, S, A> {
        &self.drain
    }

    /// Looks whether nothing more is to be waited for: all are through, or the time is. Those who are to be refused
    /// are refused here.
    pub fn is_over(&mut self) -> bool {
        let now = self.drain.port.now();
        if now >= self.until {
            return true;
        }
        let empty = match &self.rest {
            // Stopped or dead, it serves nobody any more.
            Pending::Serve(_) if self.drain.state.is_terminal() => return true,
            Pending::Serve(_) => matches!(self.drain.port.peek(), Peek::Empty | Peek::Shut),
            Pending::Refuse(refusal) => self.drain.refuse_queued(refusal, BATCH),
        };
        let taken = self.taken();
        self.stuck = std::mem::replace(&mut self.seen, taken) == taken;
        if !empty {
            self.quiet = None;
            return false;
        }
        let since = match self.quiet {
            Some((since, before)) if before == taken => since,
            _ => now,
        };
        self.quiet = Some((since, taken));
        now.saturating_sub(since) >= self.watched()
    }

    /// How long the owner may sleep until it looks again.
    pub fn wait(&self) -> Duration {
        let now = self.drain.port.now();
        let left = self.until.saturating_sub(now);
        match (self.quiet, &self.rest) {
            (Some((since, _)), _) => left.min(since.saturating_add(self.watched()).saturating_sub(now)),
            // It listens to the kernel, and looks now and then whether somebody else has emptied the queue.
            (None, Pending::Serve(_)) => left.min(SETTLE),
            // It does not listen.
            (None, Pending::Refuse(_)) if self.stuck => left.min(RETRY),
            (None, Pending::Refuse(_)) => Duration::ZERO,
        }
    }

    /// Refuses whoever is queued, and leaves the listener. The acceptor comes back to be closed.
    pub fn finish(mut self) -> (Drain<P, S, A>, ShutdownReport) {
        self.drain.retire();
        let (Pending::Serve(refusal) | Pending::Refuse(refusal)) = &self.rest;
        let empty = self.drain.refuse_queued(refusal, LAST);
        let left = if empty { Some(0) } else { self.drain.port.depth() };
        let (before, now) = (self.before, self.drain.control().counters());
        let farewell = ShutdownReport {
            served: now.delivered - before.delivered,
            refused: now.refused - before.refused,
            aborted: now.aborted - before.aborted,
            left,
            barred: self.barred,
        };
        (self.drain, farewell)
    }

    /// How long an empty queue is to stay empty.
    fn watched(&self) -> Duration {
        match self.barred {
            Intake::HandshakesOnly => self.settle,
            // Nobody can come; or anybody can, and to wait changes nothing about that.
            Intake::Closed | Intake::Open => Duration::ZERO,
        }
    }

    fn taken(&self) -> u64 {
        let counters = self.drain.control().counters();
        counters.delivered + counters.refused + counters.aborted
    }
}

impl<P: Bar, S: Strategy, A: Admission> Drain<P, S, A> {
    /// Takes what is queued and refuses it, at most so many. Whether the queue is empty now.
    fn refuse_queued(&self, refusal: &Refusal, most: u32) -> bool {
        let tally = &self.published.tally;
        let mut fruitless = 0;
        for _ in 0..most {
            if matches!(self.port.peek(), Peek::Empty | Peek::Shut) {
                return true;
            }
            tally.attempts.add();
            match self.port.accept() {
                Ok(stream) => {
                    tally.refused(Cause::Closing);
                    self.port.refuse(stream, refusal);
                    let _ = self.port.make_reserve();
                    fruitless = 0;
                }
                Err(errno) => {
                    tally.failed(errno.class());
                    match errno.class() {
                        // A Unix listener that is shut says that something waits, for ever.
                        ErrnoClass::Empty | ErrnoClass::Fatal => return true,
                        ErrnoClass::Consumed | ErrnoClass::Interrupted if fruitless < FRUITLESS_MAX => {
                            fruitless += 1
                        }
                        ErrnoClass::Resource if errno.is_descriptors() && self.port.give_up_reserve() => {}
                        ErrnoClass::Consumed | ErrnoClass::Interrupted | ErrnoClass::Resource => {
                            return false;
                        }
                    }
                }
            }
        }
        false
    }
}

impl<P: Bar, S: Strategy, A: Admission> Steps for WindDown<P, S, A> {
    type Stream = P::Stream;
    type Permit = A::Permit;

    fn begin(&mut self, whole: bool, key: Key) {
        Steps::begin(&mut self.drain, whole, key);
    }

    fn advance(&mut self, key: Key) -> Step<P::Stream, A::Permit> {
        match Steps::advance(&mut self.drain, key)? {
            Ok(connection) => {
                self.drain.port.unbar(&connection);
                Some(Ok(connection))
            }
            // A listener that was shut to bar it and has been emptied is dead: as it should be.
            Err(_) if self.barred == Intake::Closed => None,
            Err(dead) => Some(Err(dead)),
        }
    }

    fn handle(&self) -> Control {
        self.drain.control()
    }
}
