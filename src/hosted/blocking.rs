//! A blocking acceptor.

use std::io;
use std::iter::FusedIterator;

use super::host::Hosted;
use crate::admission::connection::Connection;
use crate::admission::filter::Filter;
use crate::admission::gate::Gate;
use crate::admission::permit::Permit;
use crate::drain::control::Control;
use crate::drain::counters::Counters;
use crate::drain::poller::Progress;
use crate::drain::shutdown::ShutdownReport;
use crate::drain::state::State;
use crate::linux::builder::{BuildError, Builder};
use crate::linux::listener::Listener;

/// An acceptor for servers with a thread for each connection: [`accept`](Self::accept) blocks, and so do the streams.
///
/// Made by [`Builder::build_blocking`]. The thread that accepts sleeps until a connection may be accepted; it is woken
/// by arrivals, by a permit, by the end of a pause, and by a [`Control`], from any thread.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use std::thread;
/// use epoll_acceptor::{Gate, LevelTriggered};
///
/// # fn main() -> std::io::Result<()> {
/// let gate = Gate::new(100);
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_blocking()?;
/// let control = acceptor.control();
///
/// let server = thread::spawn(move || -> std::io::Result<()> {
///     for connection in acceptor.incoming() {
///         let mut connection = connection?;
///         // The permit is released when the thread drops the connection.
///         thread::spawn(move || connection.write_all(b"hello"));
///     }
///     Ok(()) // stopped
/// });
///
/// let mut reply = String::new();
/// TcpStream::connect(address)?.read_to_string(&mut reply)?;
/// assert_eq!(reply, "hello");
/// control.stop();
/// server.join().unwrap()
/// # }
/// ```
///
/// ## Limits
///
/// A connection costs a thread, and at least one descriptor: choose the gate's limit below `ulimit -u` and
/// `ulimit -n`, minus what else is open. A server that duplicates each stream (`try_clone`) needs two descriptors for
/// each.
///
/// ## Keep one `accept` pending
///
/// A permit that was handed to this acceptor waits with it until the next `accept`: do other blocking work on other
/// threads.
///
/// ## Graceful shutdown
///
/// After [`Control::shutdown_gracefully`] go on accepting until `None`; then [`shutdown_report`](Self::shutdown_report)
/// counts the pending connections that were served, refused and lost, and [`Gate::wait_idle`] waits for those in
/// service.
#[derive(Debug)]
#[must_use = "dropping it closes the listener"]
pub struct BlockingAcceptor<L: Listener, F: Filter = ()> {
    hosted: Hosted<L, F>,
}

/// The connections of a [`BlockingAcceptor`]; made by [`BlockingAcceptor::incoming`].
#[derive(Debug)]
#[must_use = "it accepts nothing unless it is iterated"]
pub struct Incoming<'a, L: Listener, F: Filter> {
    acceptor: &'a mut BlockingAcceptor<L, F>,
}

type StdConnection<L, F> = Connection<<L as Listener>::Stream, Permit<<F as Filter>::Permit>>;

impl<L: Listener, F: Filter, G: Into<Option<Gate>>> Builder<L, F, G> {
    /// Registers the listener on an epoll of its own, for a thread that accepts and blocks. The streams are in blocking
    /// mode.
    ///
    /// # Errors
    ///
    /// As [`build_hosted`](Self::build_hosted).
    pub fn build_blocking(self) -> Result<BlockingAcceptor<L, F>, BuildError<L>> {
        let mut hosted = self.build_hosted()?;
        hosted.accept_blocking();
        Ok(BlockingAcceptor { hosted })
    }
}

impl<L: Listener, F: Filter> BlockingAcceptor<L, F> {
    /// Waits for the next connection; `None` when the acceptor was stopped or shut down, or after it has reported that
    /// the listener is closed. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`ListenerClosed`](crate::ListenerClosed), once. No client can cause one, nor can exhausted descriptors.
    pub fn accept(&mut self) -> io::Result<Option<StdConnection<L, F>>> {
        loop {
            match self.hosted.poll(None)? {
                Progress::Connection(connection) => return Ok(Some(connection)),
                Progress::Yield | Progress::Idle => {}
                Progress::Stopped => return Ok(None),
                Progress::ListenerClosed(closed) => return Err(closed.into()),
            }
        }
    }

    /// Returns an iterator over the connections, which blocks, and ends when [`accept`](Self::accept) returns `None`.
    pub const fn incoming(&mut self) -> Incoming<'_, L, F> {
        Incoming { acceptor: self }
    }

    /// Returns a handle to pause, stop, shut down and observe the acceptor from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        self.hosted.control()
    }

    /// Returns the state of the acceptor.
    #[must_use]
    pub fn state(&self) -> State {
        self.hosted.state()
    }

    /// Returns the counters of the acceptor.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.hosted.counters()
    }

    /// Returns the report of a graceful shutdown once it has ended.
    #[must_use]
    pub fn shutdown_report(&self) -> Option<ShutdownReport> {
        self.hosted.shutdown_report()
    }

    /// Returns the listener, to read its address for example.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.hosted.listener()
    }

    /// Takes it apart and returns the listener, non-blocking, its queue intact.
    #[must_use = "dropping the listener closes it and resets the connections that are pending"]
    pub fn into_listener(self) -> L {
        self.hosted.into_listener()
    }
}

impl<L: Listener, F: Filter> Iterator for Incoming<'_, L, F> {
    type Item = io::Result<StdConnection<L, F>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.acceptor.accept().transpose()
    }
}

impl<L: Listener, F: Filter> FusedIterator for Incoming<'_, L, F> {}
