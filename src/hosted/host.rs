//! An acceptor on an epoll of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use crate::admission::filter::Filter;
use crate::admission::gate::Gate;
use crate::admission::permit::Permit;
use crate::drain::acceptor::Acceptor;
use crate::drain::control::Control;
use crate::drain::counters::Counters;
use crate::drain::poller::{Poller, Progress};
use crate::drain::shutdown::ShutdownReport;
use crate::drain::state::State;
use crate::linux::acceptor::EpollAcceptor;
use crate::linux::builder::{BuildError, Builder};
use crate::linux::epoll::Epoll;
use crate::linux::events::Events;
use crate::linux::listener::Listener;
use crate::linux::token::Token;

/// An acceptor on an epoll of its own, as one descriptor that any event loop can watch for reading.
///
/// The descriptor ([`AsFd`], [`AsRawFd`]) is readable while a pass is due: connections are pending, a permit was
/// released, the timer has expired, or a [`Control`] was used. Then call [`poll_accept`](Self::poll_accept).
///
/// Made by [`Builder::build_hosted`]. See [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).
///
/// In an outer epoll that watches edges:
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use epoll_acceptor::{Epoll, Events, Interest, LevelTriggered, Progress, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let mut hosted = LevelTriggered::on(listener).budget(2).build_hosted()?;
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
///         match hosted.poll_accept()? {
///             Progress::Connection(connection) => served += usize::from(connection.peer_addr().is_ok()),
///             Progress::Yield => {} // a budget of two is used: others could run here
///             Progress::Idle => break,
///             Progress::Stopped => return Ok(()),
///             Progress::ListenerClosed(closed) => return Err(closed.into()),
///         }
///     }
/// }
/// assert_eq!(served, 5, "all of them, on one edge");
/// # Ok(())
/// # }
/// ```
///
/// ## Edge-triggered event loops
///
/// Loops such as tokio's `AsyncFd` and mio react to an edge, and sleep until the next. A registration that
/// stays on the inner epoll's ready list raises no edge (K72). A loop that answers an edge by one wait and one pass,
/// and then sleeps, strands the rest of the queue whenever a pass ends before the queue does. So **sleep after
/// [`Progress::Idle`] only**, and clear only the readiness that was seen *before* that call. A loop that watches levels
/// (poll(2), an outer epoll without `EPOLLET`) may sleep at any time.
///
/// ## The descriptor is the inner epoll
///
/// Do not call epoll_wait(2) on it or register anything there.
#[derive(Debug)]
#[must_use = "dropping it closes the listener"]
pub struct Hosted<L: Listener, F: Filter = ()> {
    // Dropped first: the acceptor deregisters itself.
    poller: Poller<EpollAcceptor<L, F>>,
    epoll: Epoll,
    events: Events,
}

/// Listener, waker and timer: all that is ever registered.
const EVENTS: usize = 3;
/// Their token. Not compared: what the inner epoll reports is the acceptor's.
const TOKEN: Token = Token(0);

impl<L: Listener, F: Filter, G: Into<Option<Gate>>> Builder<L, F, G> {
    /// Registers the listener on an epoll of its own, for an event loop to watch as one descriptor.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); it takes four descriptors besides the listener. The error returns the listener.
    pub fn build_hosted(self) -> Result<Hosted<L, F>, BuildError<L>> {
        let opened = Epoll::new().and_then(|epoll| Ok((epoll, Events::with_capacity(EVENTS)?)));
        let (epoll, events) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.refused(error)),
        };
        let poller = Poller::new(self.register(&epoll, TOKEN)?);
        Ok(Hosted { poller, epoll, events })
    }
}

impl<L: Listener, F: Filter> Hosted<L, F> {
    /// Returns the next connection, or the reason why there is none now.
    ///
    /// Never blocks. Between two connections of one pass it makes no system call but the acceptor's own. After
    /// [`Progress::Idle`] call it only when the descriptor is readable: a needless call costs an accept that fails.
    ///
    /// # Errors
    ///
    /// Those of [`Epoll::wait`], which a correct program does not meet.
    pub fn poll_accept(&mut self) -> io::Result<Progress<L::Stream, Permit<F::Permit>>> {
        self.poll(Some(Duration::ZERO))
    }

    /// As [`poll_accept`](Self::poll_accept), but waits for the next pass.
    pub(super) fn poll(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<Progress<L::Stream, Permit<F::Permit>>> {
        let Self { poller, epoll, events } = self;
        poller.poll_accept(|| {
            loop {
                let waited = epoll.wait(events, timeout)?;
                // One pass answers them all.
                events.clear();
                if !waited.interrupted() {
                    break Ok(waited.count() > 0);
                }
            }
        })
    }

    pub(super) const fn accept_blocking(&mut self) {
        self.poller.acceptor_mut().accept_blocking();
    }

    /// Returns how often it polled its epoll, each time with timeout zero.
    #[must_use]
    pub const fn polls(&self) -> u64 {
        self.poller.polls()
    }

    /// Returns how often it was [`Progress::Idle`]. If the loop sleeps when idle, this is how often it was woken.
    #[must_use]
    pub const fn idle_polls(&self) -> u64 {
        self.poller.idle_polls()
    }

    /// Returns a handle to pause, stop, shut down and observe the acceptor from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        self.poller.acceptor().control()
    }

    /// Returns the state of the acceptor.
    #[must_use]
    pub fn state(&self) -> State {
        self.poller.acceptor().state()
    }

    /// Returns the counters of the acceptor.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.poller.acceptor().counters()
    }

    /// Returns the report of a graceful shutdown once it has ended.
    #[must_use]
    pub fn shutdown_report(&self) -> Option<ShutdownReport> {
        self.poller.acceptor().shutdown_report()
    }

    /// Returns the listener, to read its address for example.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.poller.acceptor().listener()
    }

    /// Takes it apart and returns the listener, its queue intact.
    #[must_use = "dropping the listener closes it and resets the connections that are pending"]
    pub fn into_listener(self) -> L {
        self.poller.into_acceptor().into_listener()
    }
}

impl<L: Listener, F: Filter> AsFd for Hosted<L, F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<L: Listener, F: Filter> AsRawFd for Hosted<L, F> {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
