//! The end of a listener: its bar, and the acceptor that is wound down.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::acceptor::EpollAcceptor;
use super::hops::Hops;
use super::listener::Listener;
use super::port::EpollBackend;
use super::sys::{self, options};
use crate::admission::policy::{Admission, Unlimited};
use crate::drain::acceptor::{Key, Steps};
use crate::drain::closing::{Bar, Intake, Pending, ShutdownReport, WindDown};
use crate::drain::core::Step;
use crate::drain::shared::Control;
use crate::drain::strategy::{LevelTriggered, Strategy};

/// An acceptor whose listener is to be closed without resetting anyone; made by
/// [`EpollAcceptor::wind_down`].
///
/// Newcomers are kept out by the kernel from now on. Go on waiting and passing as before, never longer than
/// [`timeout`](Self::timeout), until it [`is_over`](Self::is_over); then [`finish`](Self::finish).
#[must_use = "dropping it closes the listener at once, and resets whoever is queued"]
pub struct WindingDown<L: Listener, S: Strategy = LevelTriggered, A: Admission = Unlimited> {
    inner: WindDown<EpollBackend<L>, S, A>,
}

impl<L: Listener, S: Strategy, A: Admission> EpollAcceptor<L, S, A> {
    /// Begins to end the service: keeps newcomers out, serves or refuses whoever is queued, and at last closes the
    /// listener. `within` bounds it; then whoever is still queued is refused.
    ///
    /// To accept until nobody waits and then to close resets everybody who comes in between. So the socket is barred
    /// first:
    ///
    /// * Unix: `shutdown(SHUT_RD)`. Whoever connects is refused (ECONNREFUSED), the queue stays acceptable.
    /// * TCP: `IP_MINTTL` and `IPV6_MINHOPCOUNT` = 255. Whoever begins a handshake is not answered, and tries again by
    ///   itself after a second: at this port's next owner, if there is one by then. A handshake that had begun is
    ///   still queued when it ends, so that an empty queue is watched for a while ([`settle`](WindingDown::settle)).
    /// * MPTCP, vsock and others: cannot be barred. The window remains, as short as it can be.
    ///
    /// Needs no privileges. An acceptor that was stopped or has died before serves nobody: then there is only the rest
    /// to refuse.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::{TcpListener, TcpStream};
    /// use std::time::Duration;
    /// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, Refusal, Pending, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let epoll = Epoll::new()?;
    /// let mut events = Events::with_capacity(64)?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let acceptor = LevelTriggered::on(listener).register(&epoll, Token(0))?;
    /// let mut last = TcpStream::connect(address)?;
    ///
    /// let mut ending = acceptor.wind_down(Pending::Serve(Refusal::Reset), Duration::from_secs(5));
    /// while !ending.is_over() {
    ///     epoll.wait(&mut events, Some(ending.timeout()))?;
    ///     for event in &mut events {
    ///         if event.token() == Token(0) {
    ///             ending.drain(|connection| drop(connection))?;
    ///         }
    ///     }
    /// }
    /// let farewell = ending.finish();
    /// assert_eq!((farewell.served, farewell.refused, farewell.left), (1, 0, Some(0)));
    /// assert_eq!(last.read(&mut [0])?, 0, "an orderly end, and no reset");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ## Not while others hold the socket
    ///
    /// The bar acts on the socket, and so on every duplicate of its descriptor, in other acceptors and processes. A service
    /// manager that keeps the socket open for the next start (systemd's socket activation) is one of these. Of
    /// the acceptors of one listener the last one winds down; a listener that is handed over goes by
    /// [`into_listener`](Self::into_listener).
    ///
    /// ## What the bar of TCP does not keep out
    ///
    /// Neighbours whose packets arrive with a TTL of 255, handshakes that had begun, and SYN cookies:
    /// [each of them](crate::guide::handover#what-the-bar-of-tcp-does-not-keep-out).
    ///
    /// # References
    ///
    /// [ip(7)](https://man7.org/linux/man-pages/man7/ip.7.html)
    #[doc(alias = "IP_MINTTL")]
    #[doc(alias = "graceful shutdown")]
    pub fn wind_down(self, rest: Pending, within: Duration) -> WindingDown<L, S, A> {
        WindingDown { inner: WindDown::begin(self.drain, rest, within) }
    }
}

impl<L: Listener, S: Strategy, A: Admission> WindingDown<L, S, A> {
    /// How long an empty queue is watched for TCP handshakes that had begun before; 250 ms unless set, which is the
    /// round trip of nearly every path. Those that last longer are reset. Unix sockets have no handshake, and no wait.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.set_settle(settle);
        self
    }

    pub(crate) fn set_settle(&mut self, settle: Duration) {
        self.inner.set_settle(settle);
    }

    /// How long the next wait may last at most.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.inner.wait()
    }

    /// Whether all are through, or the time is. Ask after each wait: those who are to be refused at once are refused
    /// here.
    #[must_use]
    pub fn is_over(&mut self) -> bool {
        self.inner.is_over()
    }

    /// How far newcomers are kept out.
    #[must_use]
    pub fn barred(&self) -> Intake {
        self.inner.barred()
    }

    /// The listener.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.inner.drain().port().listener()
    }

    /// Refuses whoever is queued now, deregisters and closes the listener, and tells what became of everyone. At any
    /// time: it need not be over.
    pub fn finish(self) -> ShutdownReport {
        let (drain, farewell) = self.inner.finish();
        drop(drain);
        farewell
    }
}

impl<L: Listener, S: Strategy, A: Admission> Steps for WindingDown<L, S, A> {
    type Stream = L::Stream;
    type Permit = A::Permit;

    fn begin(&mut self, whole: bool, key: Key) {
        self.inner.begin(whole, key);
    }

    fn advance(&mut self, key: Key) -> Step<L::Stream, A::Permit> {
        self.inner.advance(key).map(|taken| taken.map(|connection| connection.map(L::Stream::from)))
    }

    fn handle(&self) -> Control {
        self.inner.handle()
    }
}

impl<L: Listener + fmt::Debug, S: Strategy, A: Admission> fmt::Debug for WindingDown<L, S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindingDown")
            .field("listener", self.listener())
            .field("barred", &self.barred())
            .finish_non_exhaustive()
    }
}

impl<L: Listener> Bar for EpollBackend<L> {
    fn bar(&self) -> Intake {
        let fd = self.listener().as_fd();
        let ask = |option| options::int(fd, libc::SOL_SOCKET, option).unwrap_or(0);
        match (ask(libc::SO_DOMAIN), ask(libc::SO_PROTOCOL)) {
            // On one that does not listen it would be no bar, and of no use.
            _ if !sys::is_listening(fd) => Intake::Closed,
            (libc::AF_UNIX, _) if options::shutdown_read(fd).is_ok() => Intake::Closed,
            // Others take the option as well, and let everybody in.
            (domain @ (libc::AF_INET | libc::AF_INET6), libc::IPPROTO_TCP) => {
                match Hops::bar(fd, domain == libc::AF_INET6) {
                    Some(before) => {
                        self.barred(before);
                        Intake::HandshakesOnly
                    }
                    None => Intake::Open,
                }
            }
            _ => Intake::Open,
        }
    }

    fn unbar(&self, stream: &OwnedFd) {
        if let Some(before) = self.bar_of_tcp() {
            let _ = before.set(stream.as_fd());
        }
    }
}
