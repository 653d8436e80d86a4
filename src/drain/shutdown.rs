//! Graceful shutdown: closes a listener without a reset for the connections that are pending.
//!
//! A connection that arrives between the last accept and the close is reset. So the intake is closed first: the kernel
//! keeps new connections out, and what is pending stays. Only then does an empty queue mean that nothing is left,
//! except TCP handshakes that were under way; the acceptor waits for those.

use std::time::Duration;

use super::accept::Missed;
use super::backend::{Backend, Peek};
use super::core::{AcceptCore, PassEnd};
use super::counters::Counters;
use super::pass::Pass;
use super::phase::{BlockReason, Blocked, Closed, Phase};
use super::trigger::EmptyCheck;
use crate::admission::filter::Filter;
use crate::admission::refusal::{Cause, Refusal, Rejection};
use crate::admission::semaphore::Semaphore;

/// The fate of connections that are pending when a graceful shutdown begins:
/// [`Control::shutdown_gracefully`](crate::Control::shutdown_gracefully), which has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pending {
    /// They are delivered, as far as the gate and the deadline allow; the rest is refused in this way.
    Serve(Refusal),
    /// They are refused in this way.
    Refuse(Refusal),
    /// They stay in the queue, and new ones join it, for the socket's next owner: a new process, or the service manager
    /// that holds the socket. As [`Control::stop`](crate::Control::stop): there is no report.
    Keep,
}

/// The extent to which the kernel keeps new connections out of an accept queue from which connections can still be
/// accepted.
///
/// See K23 and K79 of [the kernel's rules](crate::guide::kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Intake {
    /// Nothing can be queued any more (Unix sockets).
    Closed,
    /// No handshake can begin; those under way are queued when they end (TCP).
    HandshakesOnly,
    /// Not at all: the kernel has no means for this socket (MPTCP, vsock, TCP whose own `IP_MINTTL` is 255).
    Open,
}

/// The last connections of a listener, counted from the start of its graceful shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Connections delivered to the owner.
    pub served: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections that failed before they could be accepted.
    pub aborted: u64,
    /// Connections still pending at the end, because descriptors or memory had run out: the close resets them. `None`
    /// if there were some and the kernel does not report how many.
    pub abandoned: Option<u32>,
    /// The extent to which new connections were kept out.
    pub intake: Intake,
}

#[derive(Debug)]
pub(super) struct ShutdownCommand {
    /// Whether pending connections are served until the deadline.
    pub(super) serves: bool,
    /// How the rest is refused.
    pub(super) refusal: Refusal,
    pub(super) within: Duration,
}

/// A graceful shutdown that is going on.
#[derive(Debug)]
pub(super) struct Ending {
    serves: bool,
    refusal: Refusal,
    intake: Intake,
    /// The queue was empty when the intake was about to be closed.
    began_empty: bool,
    pub(super) deadline: Duration,
    before: Counters,
    /// Since when the queue has been empty and nothing was taken, and how much had been taken by then.
    quiet: Option<(Duration, u64)>,
    /// When to look again.
    pub(super) check_at: Duration,
}

/// The interval between checks of the queue, which another process may empty.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The maximum number of connections refused at the end: more than a queue holds, and a bound where new connections
/// cannot be kept out.
const REFUSED_MAX: u32 = 1 << 16;

impl Ending {
    /// Returns how pending connections are refused, if they are not served.
    pub(super) const fn refuses(&self) -> Option<&Refusal> {
        if self.serves { None } else { Some(&self.refusal) }
    }
}

impl<B: Backend, G: Semaphore, F: Filter> AcceptCore<B, G, F> {
    pub(super) fn refuses_pending(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.refuses().is_some())
    }

    /// Carries out the command: closes the intake. From then on every pass checks whether any connection is left.
    #[cold]
    pub(super) fn begin_shutdown(&mut self) {
        let Some(ShutdownCommand { serves, refusal, within }) = self.shared.take_shutdown() else { return };
        let now = self.now();
        let deadline = now.saturating_add(within);
        let began_empty = self.backend.peek() == Peek::Empty;
        let intake = self.backend.close_intake();
        // If a descriptor is available now, no pending connection is reset for lack of one later.
        let _ = self.backend.make_reserve();
        let before = self.shared.read();
        let (quiet, check_at) = (None, now);
        self.ending =
            Some(Ending { serves, refusal, intake, began_empty, deadline, before, quiet, check_at });
        if matches!(self.phase, Phase::Blocked { .. }) && self.refuses_pending() {
            self.listen();
        }
    }

    /// Ends the shutdown if no connection is left or the deadline has come; otherwise sets the alarm for the next look.
    #[cold]
    pub(super) fn check_shutdown(&mut self) {
        let (now, taken) = (self.now(), self.taken());
        let Some(ending) = &self.ending else { return };
        let (deadline, check_at) = (ending.deadline, ending.check_at);
        if now >= deadline || (check_at == deadline && self.is_due(deadline)) {
            return self.finish_shutdown();
        }
        // The acceptor is closed: what is pending is refused.
        if matches!(self.phase, Phase::Closed(_)) {
            return self.finish_shutdown();
        }
        let grace = match ending.intake {
            Intake::HandshakesOnly => self.config.handshake_grace,
            // Nothing can arrive; or anything can, and waiting does not change that.
            Intake::Closed | Intake::Open => Duration::ZERO,
        };
        // poll(2) reports a Unix listener that is shut down as readable, and a full gate has no permit for an accept:
        // the queue counts as empty if it was empty before the intake was closed. What arrived in between is refused.
        let is_full = matches!(self.phase, Phase::Blocked { on: Blocked::Full, .. });
        let closed_empty = ending.began_empty && ending.intake == Intake::Closed && is_full;
        let empty = closed_empty || matches!(self.backend.peek(), Peek::Empty | Peek::Closed);
        let Some(ending) = &mut self.ending else { return };
        ending.quiet = match ending.quiet {
            _ if !empty => None,
            Some((since, before)) if before == taken => Some((since, taken)),
            _ => Some((now, taken)),
        };
        let check_at = match ending.quiet {
            Some((since, _)) => since.saturating_add(grace),
            None => now.saturating_add(CHECK_INTERVAL),
        };
        ending.check_at = check_at.min(deadline);
        let all_through = ending.quiet.is_some() && now >= check_at;
        if all_through { self.finish_shutdown() } else { self.set_alarm() }
    }

    /// Refuses what is pending, leaves the listener, and publishes the report.
    #[cold]
    fn finish_shutdown(&mut self) {
        let Some(ending) = &self.ending else { return };
        let rejection = Rejection::new(Cause::Shutdown, ending.refusal.clone());
        // A subscriber may panic: then the next pass finishes.
        let refused_all = self.refuse_pending(&rejection);
        let Some(ending) = self.ending.take() else { return };
        let abandoned = if refused_all { Some(0) } else { self.backend.queue_length() };
        let (before, now) = (ending.before, self.shared.read());
        self.shared.publish_report(ShutdownReport {
            served: now.delivered - before.delivered,
            refused: now.refused - before.refused,
            aborted: now.aborted - before.aborted,
            abandoned,
            intake: ending.intake,
        });
        match self.phase {
            // It was told to stop, or its listener was closed, before.
            Phase::Closed(_) => self.set_alarm(),
            _ => self.close(Closed::Stopped),
        }
    }

    /// Accepts and refuses what is pending, beyond the budget. Returns whether the queue is empty now.
    fn refuse_pending(&mut self, rejection: &Rejection) -> bool {
        self.close_pass();
        self.pass = Pass::all(REFUSED_MAX, true, EmptyCheck::UntilEagain);
        let mut emptied = false;
        while self.pass.left > 0 {
            if matches!(self.backend.peek(), Peek::Empty | Peek::Closed) {
                emptied = true;
                break;
            }
            let missed = match self.accept_to_refuse(rejection) {
                missed @ Missed::End(PassEnd::Block(BlockReason::Exhausted(errno)))
                    if errno.is_descriptors() =>
                {
                    self.refuse_with_reserve(rejection).unwrap_or(missed)
                }
                missed => missed,
            };
            match missed {
                Missed::Retry => {
                    let _ = self.backend.make_reserve();
                }
                // EAGAIN or a fatal error: a Unix listener that is shut down is reported as not empty forever.
                Missed::End(PassEnd::Done | PassEnd::ListenerClosed(_)) => {
                    emptied = true;
                    break;
                }
                Missed::End(_) => break,
            }
        }
        self.close_pass();
        emptied
    }

    fn taken(&self) -> u64 {
        let counters = &self.shared.counters;
        counters.delivered.read() + counters.refused.read() + counters.aborted.read()
    }

    /// Returns whether the listener closed because a graceful shutdown shut it down to close its intake.
    pub(super) fn ends_by_shutdown(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.intake == Intake::Closed)
    }
}
