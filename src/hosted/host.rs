//! An acceptor on an epoll of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::turns::{Progress, Turns};
use crate::admission::policy::Admission;
use crate::drain::acceptor::Acceptor;
use crate::drain::closing::{Intake, Pending, ShutdownReport};
use crate::drain::counters::Counters;
use crate::drain::shared::Control;
use crate::drain::state::State;
use crate::drain::strategy::Strategy;
use crate::linux::acceptor::{BuildError, Builder, EpollAcceptor};
use crate::linux::closing::WindingDown;
use crate::linux::epoll::Epoll;
use crate::linux::events::Events;
use crate::linux::listener::Listener;
use crate::linux::token::Token;

/// An acceptor on an epoll of its own, as one descriptor that any event loop can watch for reading.
///
/// The descriptor ([`AsFd`], [`AsRawFd`]) is readable while a pass is due: connections wait, a permit came
/// back, the alarm went off, somebody called [`Control::resume`] or [`Control::stop`]. Whoever is told so
/// takes turns.
///
/// Made by [`Builder::hosted`].
///
/// ## Sleep after `Quiet`, and never before
///
/// A host that watches edges and sleeps after anything else but [`Progress::Idle`] strands whoever is still
/// queued: see [the trap](super#the-trap-of-an-edge-triggered-host). Forget only the readiness that was seen
/// *before* the turn that was quiet. One that watches levels (poll(2), an outer epoll without `EPOLLET`) may
/// sleep whenever it wants.
///
/// ## Its descriptor is the inner epoll
///
/// Nobody else may wait on it, or register anything there.
///
/// # Examples
///
/// In an outer epoll that watches edges:
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::{Epoll, Events, Interest, LevelTriggered, Token, Progress};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let mut hosted = LevelTriggered::on(listener).budget(2).hosted()?;
///
/// let outer = Epoll::new()?;
/// outer.add(&hosted, Token(1), Interest::IN | Interest::ET)?;
/// let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
///
/// let mut events = Events::with_capacity(8)?;
/// let mut served = 0;
/// outer.wait(&mut events, None)?;
/// while events.next().is_some() {
///     loop {
///         match hosted.turn()? {
///             Progress::Connection(connection) => served += usize::from(connection.peer_addr().is_ok()),
///             Progress::Yield => {} // a budget of two is used up: others could have their turn here
///             Progress::Idle => break,
///             Progress::ListenerClosed(dead) => return Err(dead.into()),
///             Progress::Stopped => return Ok(()),
///         }
///     }
/// }
/// assert_eq!(served, 5, "all of them, on one edge");
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html)
#[derive(Debug)]
#[must_use = "dropping it closes the listener"]
pub struct Hosted<A> {
    // The acceptor goes first, and deregisters itself.
    turns: Turns<A>,
    epoll: Epoll,
    events: Events,
}

/// Listener, wake-up and alarm: all that is ever registered.
const EVENTS: usize = 3;
/// What they are registered under. Nobody compares it: whatever the inner epoll reports is the acceptor's.
const TOKEN: Token = Token(0);

impl<L: Listener, S: Strategy, A: Admission> Builder<L, S, A> {
    /// Registers the listener on an epoll made for it, to be watched by an event loop as one descriptor.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); out of descriptors, which takes four besides the listener. The
    /// listener comes back.
    pub fn hosted(self) -> Result<Hosted<EpollAcceptor<L, S, A>>, BuildError<L>> {
        let made = Epoll::new().and_then(|epoll| Ok((epoll, Events::with_capacity(EVENTS)?)));
        let (epoll, events) = match made {
            Ok(made) => made,
            Err(error) => return Err(self.refused(error)),
        };
        let turns = Turns::new(self.register(&epoll, TOKEN)?);
        Ok(Hosted { turns, epoll, events })
    }
}

impl<A: Acceptor> Hosted<A> {
    /// One turn: the next connection, or why there is none just now.
    ///
    /// Never blocks. Between two connections of one pass it makes no system call but those of the acceptor.
    ///
    /// # Errors
    ///
    /// Those of [`Epoll::wait`](crate::linux::Epoll::wait): none that a correct program meets.
    pub fn turn(&mut self) -> io::Result<Progress<A::Stream, A::Permit>> {
        let Self { turns, epoll, events } = self;
        turns.turn(|| {
            loop {
                let waited = epoll.wait(events, Some(Duration::ZERO))?;
                // Whatever they were of, one pass answers them all.
                events.clear();
                if !waited.interrupted() {
                    break Ok(waited.count() > 0);
                }
            }
        })
    }

    /// How often it looked at its epoll: a wait with timeout zero each.
    #[must_use]
    pub const fn polls(&self) -> u64 {
        self.turns.polls()
    }

    /// How often a turn was [`Progress::Idle`]. In a host that sleeps then, this is how often it was woken.
    #[must_use]
    pub const fn idle_polls(&self) -> u64 {
        self.turns.idle_polls()
    }

    /// A handle to pause, resume, stop and observe the acceptor from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        self.turns.acceptor().control()
    }

    /// What the acceptor is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.turns.acceptor().state()
    }

    /// What the acceptor has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.turns.acceptor().counters()
    }
}

impl<L: Listener, S: Strategy, A: Admission> Hosted<EpollAcceptor<L, S, A>> {
    /// The listener, to ask its address for example.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.turns.acceptor().listener()
    }

    /// Takes it apart and gives the listener back, with everything still queued that was.
    #[must_use = "dropping the listener closes it and resets whoever is queued"]
    pub fn into_listener(self) -> L {
        self.turns.into_acceptor().into_listener()
    }
}

/// The end of a listener in a host: as [`WindingDown`] says, with turns for passes.
///
/// ```
/// use std::net::TcpListener;
/// use std::time::Duration;
/// use epoll_acceptor::{LevelTriggered, Refusal, Pending, Progress};
///
/// # fn main() -> std::io::Result<()> {
/// let hosted = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).hosted()?;
/// let mut ending = hosted.wind_down(Pending::Serve(Refusal::Reset), Duration::from_secs(5)).settle(Duration::ZERO);
/// // Over by its deadline too, however many are still to be had.
/// while !(ending.timeout().is_zero() && ending.is_over()) {
///     match ending.turn()? {
///         Progress::Connection(connection) => println!("hello {:?}", connection.peer_addr()),
///         Progress::Yield => {}
///         Progress::ListenerClosed(dead) => return Err(dead.into()),
///         Progress::Idle | Progress::Stopped if ending.is_over() => break,
///         // The host waits here until the descriptor is readable, at most for `ending.timeout()`.
///         Progress::Idle | Progress::Stopped => {}
///     }
/// }
/// assert_eq!(ending.finish().left, Some(0));
/// # Ok(())
/// # }
/// ```
impl<L: Listener, S: Strategy, A: Admission> Hosted<EpollAcceptor<L, S, A>> {
    /// As [`EpollAcceptor::wind_down`]: keeps newcomers out, serves or refuses whoever is queued, and at last closes the
    /// listener.
    ///
    /// Take a turn at once, whatever the host has been told. From then on take turns as before, until one is
    /// [`Quiet`](Progress::Idle) or [`Over`](Progress::Stopped); then ask whether it [`is_over`](Self::is_over), and if not, sleep,
    /// but no longer than [`timeout`](Self::timeout). Ask before a turn, too, when the timeout has come down to zero: while
    /// connections are to be had no turn is quiet.
    pub fn wind_down(self, rest: Pending, within: Duration) -> Hosted<WindingDown<L, S, A>> {
        let Self { turns, epoll, events } = self;
        Hosted { turns: Turns::new(turns.into_acceptor().wind_down(rest, within)), epoll, events }
    }
}

impl<L: Listener, S: Strategy, A: Admission> Hosted<WindingDown<L, S, A>> {
    /// As [`WindingDown::settle`].
    pub fn settle(mut self, settle: Duration) -> Self {
        self.set_settle(settle);
        self
    }

    pub(super) fn set_settle(&mut self, settle: Duration) {
        self.turns.acceptor_mut().set_settle(settle);
    }

    /// As [`WindingDown::timeout`].
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.turns.acceptor().timeout()
    }

    /// As [`WindingDown::is_over`].
    #[must_use]
    pub fn is_over(&mut self) -> bool {
        self.turns.acceptor_mut().is_over()
    }

    /// As [`WindingDown::barred`].
    #[must_use]
    pub fn barred(&self) -> Intake {
        self.turns.acceptor().barred()
    }

    /// As [`WindingDown::finish`].
    pub fn finish(self) -> ShutdownReport {
        self.turns.into_acceptor().finish()
    }
}

impl<A> AsFd for Hosted<A> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<A> AsRawFd for Hosted<A> {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
