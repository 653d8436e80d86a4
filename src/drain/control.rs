//! The state that an acceptor shares with other threads, and their handle to it.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use super::counters::{AtomicCounters, Counters};
use super::errno::Errno;
use super::shutdown::{Pending, ShutdownCommand, ShutdownReport};
use super::state::State;
use crate::admission::clock::Clock;
use crate::admission::notifier::Notifier;
use crate::admission::sync::Arc;

/// The part of an acceptor that other threads read; only the owner writes it, except the shutdown command.
pub(crate) struct SharedState {
    pub(super) counters: AtomicCounters,
    clock: std::sync::Arc<dyn Clock>,
    shutdown: std::sync::Mutex<Shutdown>,
}

/// The graceful shutdown, as other threads see it.
#[derive(Debug, Default)]
enum Shutdown {
    #[default]
    None,
    /// The owner has not seen the command yet.
    Commanded(ShutdownCommand),
    /// The owner carries it out; or it was `Pending::Keep`, which only stops.
    Begun,
    Ended(ShutdownReport),
}

impl SharedState {
    pub(super) fn new(clock: std::sync::Arc<dyn Clock>) -> Self {
        let counters = AtomicCounters::default();
        counters.times.begin(clock.now());
        Self { counters, clock, shutdown: std::sync::Mutex::default() }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn state(&self) -> State {
        self.counters.times.state()
    }

    pub(super) fn set_state(&self, state: State) {
        let before = self.counters.times.enter(state, self.now());
        // Last: a subscriber may panic.
        #[cfg(feature = "tracing")]
        if before != state {
            super::tracing::changed(before, state, &self.counters);
        }
        #[cfg(not(feature = "tracing"))]
        let _ = before;
    }

    pub(super) fn set_last_errno(&self, errno: Errno) {
        self.counters.set_last_errno(errno);
    }

    pub(super) fn read(&self) -> Counters {
        self.counters.read(self.now())
    }

    /// Returns the command, once.
    pub(super) fn take_shutdown(&self) -> Option<ShutdownCommand> {
        let mut shutdown = self.lock();
        match std::mem::replace(&mut *shutdown, Shutdown::Begun) {
            Shutdown::Commanded(command) => Some(command),
            other => {
                *shutdown = other;
                None
            }
        }
    }

    pub(super) fn publish_report(&self, report: ShutdownReport) {
        *self.lock() = Shutdown::Ended(report);
    }

    pub(super) fn shutdown_report(&self) -> Option<ShutdownReport> {
        match &*self.lock() {
            Shutdown::Ended(report) => Some(report.clone()),
            _ => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shutdown> {
        self.shutdown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedState").field("counters", &self.read()).finish_non_exhaustive()
    }
}

/// Pauses, stops, shuts down and observes an acceptor, from any thread.
///
/// Take it before the loop. Every command wakes the owner, which carries it out in its next pass; a pass in progress
/// sees the command before it accepts another connection.
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, State, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let epoll = Epoll::new()?;
/// let mut events = Events::with_capacity(8)?;
/// let mut acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(0))?;
/// let control = acceptor.control();
///
/// let pause = control.pause();
/// epoll.wait(&mut events, None)?; // woken by the command
/// acceptor.drain(drop)?; // carries it out
/// assert_eq!(control.state(), State::Paused);
///
/// drop(pause);
/// epoll.wait(&mut events, None)?;
/// acceptor.drain(drop)?;
/// assert_eq!(control.state(), State::Listening);
///
/// control.stop();
/// acceptor.drain(drop)?;
/// assert_eq!(control.state(), State::Stopped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Control {
    pub(super) notifier: Arc<Notifier>,
    pub(super) shared: Arc<SharedState>,
}

/// A pause of an acceptor; ends when dropped. Made by [`Control::pause`].
#[must_use = "the pause ends when the guard is dropped"]
pub struct PauseGuard {
    notifier: Arc<Notifier>,
}

impl Control {
    /// Stops accepting until the guard is dropped. Connections wait in the kernel's accept queue.
    ///
    /// Pauses are counted: the acceptor accepts again when no guard is left, so an operator and a memory watchdog
    /// cannot undo each other. The end of a pause neither opens a full gate nor restarts a stopped acceptor.
    pub fn pause(&self) -> PauseGuard {
        self.notifier.pause();
        PauseGuard { notifier: Arc::clone(&self.notifier) }
    }

    /// Stops accepting for good and removes the listener from the epoll. Pending connections stay pending: the owner
    /// closes the listener, which resets them, or hands it on.
    pub fn stop(&self) {
        self.notifier.stop();
    }

    /// Ends the service without resetting the connections that are pending. With [`Pending::Keep`] it only
    /// [stops](Self::stop).
    ///
    /// The acceptor closes its intake and delivers or refuses what is pending; the owner waits and begins passes as
    /// before. When nothing is pending, or `within` has passed and the rest was refused, the acceptor's state is
    /// [`State::Stopped`], and [`shutdown_report`](Self::shutdown_report) counts what became of the pending
    /// connections. Then drop the acceptor. Only the first call has an effect.
    ///
    /// * Unix: `shutdown(SHUT_RD)`. New connects are refused (ECONNREFUSED); queued connections can still be accepted
    ///   (K23).
    /// * TCP: `IP_MINTTL` and `IPV6_MINHOPCOUNT` = 255 (K79). A SYN is not answered; its client retries after a second,
    ///   and finds the port's next owner if there is one by then. A handshake that was under way is queued when it
    ///   ends: so an empty queue is watched for [a while](crate::Builder::handshake_grace).
    /// * MPTCP, vsock and others: nothing keeps new connections out. One that arrives between the last accept and the
    ///   close is reset.
    ///
    /// Needs no privileges. At a full gate, pending connections still wait for a permit.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::{TcpListener, TcpStream};
    /// use std::time::Duration;
    /// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, Pending, Refusal, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let epoll = Epoll::new()?;
    /// let mut events = Events::with_capacity(64)?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let mut acceptor = LevelTriggered::on(listener).register(&epoll, Token(0))?;
    /// let mut last = TcpStream::connect(address)?;
    ///
    /// acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), Duration::from_secs(5));
    /// while !acceptor.state().is_terminal() {
    ///     epoll.wait(&mut events, None)?;
    ///     for connection in acceptor.ready() {
    ///         drop(connection?); // or serve it
    ///     }
    /// }
    /// let report = acceptor.shutdown_report().unwrap();
    /// assert_eq!((report.served, report.refused, report.abandoned), (1, 0, Some(0)));
    /// assert_eq!(last.read(&mut [0])?, 0, "closed, not reset");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ## Other holders of the socket
    ///
    /// The intake is closed for every duplicate of the descriptor, in other acceptors and processes too, and stays
    /// closed: only the last acceptor of a listener may shut it down. If another process or a service manager holds
    /// the socket, use [`Pending::Keep`].
    ///
    /// ## What a closed TCP intake lets through
    ///
    /// Peers on the same link that send a TTL of 255, handshakes that were under way, and SYN cookies.
    #[doc(alias = "IP_MINTTL")]
    #[doc(alias = "graceful shutdown")]
    #[doc(alias = "connection draining")]
    pub fn shutdown_gracefully(&self, pending: Pending, within: Duration) {
        let mut shutdown = self.shared.lock();
        if !matches!(*shutdown, Shutdown::None) {
            return;
        }
        let (serves, refusal) = match pending {
            Pending::Serve(refusal) => (true, refusal),
            Pending::Refuse(refusal) => (false, refusal),
            Pending::Keep => {
                *shutdown = Shutdown::Begun;
                drop(shutdown);
                return self.stop();
            }
        };
        *shutdown = Shutdown::Commanded(ShutdownCommand { serves, refusal, within });
        drop(shutdown);
        self.notifier.shut_down();
    }

    /// Returns the report of a graceful shutdown, when it has ended.
    #[must_use]
    pub fn shutdown_report(&self) -> Option<ShutdownReport> {
        self.shared.shutdown_report()
    }

    /// Returns whether [`stop`](Self::stop) was called, even if the owner has not stopped yet.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_told_to_stop(&self) -> bool {
        self.notifier.requests().stop()
    }

    /// Returns the notifier, with which the scripts of the simulated kernel pause without a guard.
    #[cfg(feature = "sim")]
    pub(crate) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Returns the state of the acceptor.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// Returns the counters of the acceptor.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.read()
    }
}

impl Drop for PauseGuard {
    fn drop(&mut self) {
        self.notifier.resume();
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PauseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PauseGuard")
    }
}
