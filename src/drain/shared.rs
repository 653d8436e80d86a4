//! What an acceptor shares with other threads, and the handle that they hold.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use super::counters::{Counters, Tally};
use super::state::State;
use crate::admission::bell::Bell;
use crate::admission::sync::Arc;

/// The part of an acceptor that other threads may read; only the owner writes it.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) tally: Tally,
    state: AtomicU8,
}

impl Published {
    pub(super) fn state(&self) -> State {
        State::from_code(self.state.load(Ordering::Acquire))
    }

    pub(super) fn set_state(&self, state: State) {
        let before = self.state.swap(state.code(), Ordering::AcqRel);
        // Last: a subscriber may panic.
        #[cfg(feature = "tracing")]
        super::events::changed(State::from_code(before), state, &self.tally);
        #[cfg(not(feature = "tracing"))]
        let _ = before;
    }
}

/// Pauses, resumes, stops and observes an acceptor, from any thread.
///
/// Take it before the loop. All three commands are idempotent. They wake the owner, which carries them out in
/// its next pass; a pass that is going on sees them before it takes another connection.
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, State, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let epoll = Epoll::new()?;
/// let mut events = Events::with_capacity(8)?;
/// let mut acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(0))?;
///
/// let control = acceptor.control();
/// let thread = std::thread::spawn(move || {
///     control.pause();
///     control
/// });
/// epoll.wait(&mut events, None)?; // woken by the command
/// acceptor.drain(drop)?; // carries it out
/// assert_eq!(acceptor.state(), State::Paused);
///
/// let control = thread.join().unwrap();
/// control.stop();
/// acceptor.drain(drop)?;
/// assert_eq!(control.state(), State::Stopped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Control {
    pub(super) bell: Arc<Bell>,
    pub(super) published: Arc<Published>,
}

impl Control {
    /// Stops accepting until [`resume`](Self::resume). Connections wait in the kernel's accept queue.
    pub fn pause(&self) {
        self.bell.pause();
    }

    /// Takes back what [`pause`](Self::pause) did, and nothing else: a full gate stays full, and a stopped
    /// acceptor stopped.
    pub fn resume(&self) {
        self.bell.resume();
    }

    /// Stops accepting for good and takes the listener out of the epoll. What is queued stays queued: the owner
    /// closes the listener (which resets whoever waits) or hands it on.
    pub fn stop(&self) {
        self.bell.stop();
    }

    /// What the acceptor is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.published.state()
    }

    /// What the acceptor has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.published.tally.read()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("state", &self.state()).finish_non_exhaustive()
    }
}
