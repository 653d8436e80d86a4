//! The builder of acceptors.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::acceptor::EpollAcceptor;
use super::backend::{EpollBackend, NotRegistered};
use super::epoll_ctl_error::{EpollCtlError, Operation};
use super::listener::Listener;
use super::sys::{self, listen::listen};
use super::token::Token;
use crate::admission::filter::Filter;
use crate::admission::gate::Gate;
use crate::admission::refusal::Refusal;
use crate::drain::config::Config;
use crate::drain::core::AcceptCore;
use crate::drain::trigger::{EdgeTriggered, EmptyCheck, Exclusive, LevelTriggered, Trigger};

/// Configures an acceptor: its listener, trigger, gate, filters and budget. Only the listener and the trigger have no
/// default.
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Epoll, Gate, LevelTriggered, PeerLimit, RateLimit, Refusal, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let epoll = Epoll::new()?;
/// let gate = Gate::new(10_000);
/// let acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?)
///     .backlog(4_096)
///     .gate(&gate)
///     .filter(PeerLimit::new(50))
///     .filter(RateLimit::per_second(500))
///     .refuse_when_exhausted(Refusal::Reset)
///     .register(&epoll, Token(0))?;
/// # Ok(())
/// # }
/// ```
///
/// An acceptor has one gate:
///
/// ```compile_fail
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// let gate = epoll_acceptor::Gate::new(1);
/// let builder = epoll_acceptor::LevelTriggered::on(listener).gate(&gate).gate(&gate);
/// ```
#[derive(Debug)]
#[must_use = "call `register`, `build_hosted`, `build_blocking` or `build_tokio`"]
pub struct Builder<L, F = (), G = NoGate> {
    listener: L,
    filter: F,
    gate: G,
    backlog: Option<u32>,
    config: Config,
}

/// The gate of a builder that has none yet.
#[derive(Clone, Copy, Debug)]
pub struct NoGate;

/// The error of a registration. It returns the listener: [`into_listener`](Self::into_listener).
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Epoll, LevelTriggered, Token};
/// use epoll_acceptor::acceptor::BuildErrorKind;
///
/// # fn main() -> std::io::Result<()> {
/// let epoll = Epoll::new()?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let error = LevelTriggered::on(listener).budget(0).register(&epoll, Token(0)).unwrap_err();
/// assert!(matches!(error.kind(), BuildErrorKind::ZeroBudget));
/// let acceptor = LevelTriggered::on(error.into_listener()).register(&epoll, Token(0))?;
/// # Ok(())
/// # }
/// ```
pub struct BuildError<L> {
    kind: BuildErrorKind,
    listener: L,
}

/// The kind of a [`BuildError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// The budget is 0.
    #[error("the budget must be at least 1")]
    ZeroBudget,
    /// The descriptor is not a listening socket.
    #[error("the descriptor must be a listening socket: call listen(2) on it first")]
    NotListening,
    /// The same descriptor is registered on this epoll already.
    #[error(
        "the descriptor is registered on this epoll already: delete that registration, or duplicate the listener"
    )]
    AlreadyRegistered,
    /// The descriptor that was given as the epoll is not an epoll.
    #[error("the descriptor given as the epoll must be one: make it with epoll_create1(2)")]
    NotEpoll,
    /// The system refused for another reason.
    #[error("the system refused the registration: {0}{remedy}", remedy = remedy(.0))]
    System(io::Error),
}

/// Errors of epoll_ctl(2) come with a remedy of their own.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "; an acceptor takes three descriptors besides its listener: close some, or raise RLIMIT_NOFILE"
        }
        Some(libc::ENFILE) => "; close some files on this machine, or raise /proc/sys/fs/file-max",
        _ => "",
    }
}

const BUDGET: u32 = 64;

macro_rules! on {
    ($($name:ident, $trigger:expr, $example:literal;)*) => {$(
        impl $name {
            /// Begins to build an acceptor on `listener`.
            ///
            /// The listener becomes non-blocking when it is registered, for every holder of a duplicate: the flag
            /// belongs to the open socket, not to the descriptor.
            ///
            /// ```
            /// use std::net::TcpListener;
            #[doc = $example]
            ///
            /// # fn main() -> std::io::Result<()> {
            /// let epoll = Epoll::new()?;
            /// let mut acceptor = LISTEN::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(1))?;
            /// assert_eq!(acceptor.ready().count(), 0, "no client has connected yet");
            /// # Ok(())
            /// # }
            /// ```
            pub const fn on<L: Listener>(listener: L) -> Builder<L> {
                Builder::new(listener, $trigger)
            }
        }
    )*};
}

on! {
    LevelTriggered, Trigger::Level, "use epoll_acceptor::{Acceptor, Epoll, LevelTriggered as LISTEN, Token};";
    EdgeTriggered, Trigger::Edge, "use epoll_acceptor::{Acceptor, Epoll, EdgeTriggered as LISTEN, Token};";
    Exclusive, Trigger::Exclusive, "use epoll_acceptor::{Acceptor, Epoll, Exclusive as LISTEN, Token};";
}

impl Trigger {
    /// Begins to build an acceptor on `listener`, as [`LevelTriggered::on`] does.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use epoll_acceptor::{Epoll, Token, Trigger};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let trigger: Trigger = std::env::var("TRIGGER").as_deref().unwrap_or("level").parse()?;
    /// let epoll = Epoll::new()?;
    /// let acceptor = trigger.on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(0))?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn on<L: Listener>(self, listener: L) -> Builder<L> {
        Builder::new(listener, self)
    }
}

impl<L: Listener> Builder<L> {
    const fn new(listener: L, trigger: Trigger) -> Self {
        let config = Config::new(trigger, BUDGET);
        Self { listener, filter: (), gate: NoGate, backlog: None, config }
    }
}

impl<L: Listener, F: Filter> Builder<L, F, NoGate> {
    /// Limits the connections in service by `gate`, whose limit all of its users share. Pass an `Option` if the
    /// configuration decides whether there is a gate.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use epoll_acceptor::{Epoll, Gate, LevelTriggered, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let limit: Option<u32> = None; // of the command line
    /// let gate = limit.map(Gate::new);
    /// let builder = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).gate(&gate);
    /// let acceptor = builder.register(&Epoll::new()?, Token(0))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn gate<'a>(self, gate: impl Into<Option<&'a Gate>>) -> Builder<L, F, Option<Gate>> {
        let Self { listener, filter, gate: NoGate, backlog, config } = self;
        Builder { listener, filter, gate: gate.into().cloned(), backlog, config }
    }
}

impl<L: Listener, F: Filter, G: Into<Option<Gate>>> Builder<L, F, G> {
    /// Adds a filter. All filters must admit a connection. They run after the gate, in the order in which they were
    /// added.
    pub fn filter<A: Filter>(self, filter: A) -> Builder<L, (F, A), G> {
        let Self { listener, filter: before, gate, backlog, config } = self;
        Builder { listener, filter: (before, filter), gate, backlog, config }
    }

    /// Changes the listener's backlog when it is registered: the number of connections that the kernel queues. Pending
    /// connections stay. std's `bind` sets 128 for TCP: with a gate that waits, choose a backlog that holds the waiting
    /// connections. The kernel lowers it to `net.core.somaxconn` (K30, K32).
    pub const fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// Sets the maximum number of attempts per pass: 64 unless set. Further connections are left for the next wait, so
    /// that a flood of new connections does not starve those in service.
    ///
    /// More than 64 makes a connection no cheaper ([figures](crate::guide::benchmarks)). 0 is an error of
    /// [`register`](Self::register).
    pub const fn budget(mut self, attempts: u32) -> Self {
        self.config.budget = attempts;
        self
    }

    /// Sets the check for the end of the queue; by default the cheapest for the listener's family.
    pub const fn empty_check(mut self, check: EmptyCheck) -> Self {
        self.config.empty_check = Some(check);
        self
    }

    /// Reads the peer's address with each accept, for [`Connection::peer`](crate::Connection::peer). Costs a few
    /// percent of an accept.
    pub const fn with_peer(mut self) -> Self {
        self.config.with_peer = true;
        self
    }

    /// Refuses at most `per_second` connections per second, and `burst` at once; 0 counts as 1. At that limit nothing
    /// is accepted until the next refusal is allowed, so load shedding has a bounded cost, however many clients
    /// connect. It does not limit the refusals of a graceful shutdown.
    ///
    /// Connections that would be admitted wait as well: there is one queue, and a connection's peer is unknown until it
    /// is accepted.
    pub const fn refuse_at_most(mut self, per_second: u32, burst: u32) -> Self {
        self.config.refusals = Some((per_second, burst));
        self
    }

    /// Keeps a descriptor in reserve. When descriptors run out (EMFILE, ENFILE), pending connections are accepted with
    /// it and refused with `refusal`, instead of waiting in the queue.
    ///
    /// A pass refuses as many as its budget allows; if more are pending, the acceptor backs off: for 10 ms,
    /// doubling to 200 ms. If another thread takes the descriptor first, connections stay queued.
    pub fn refuse_when_exhausted(mut self, refusal: Refusal) -> Self {
        self.config.when_exhausted = Some(refusal);
        self
    }

    /// Sets how long a [graceful shutdown](crate::Control::shutdown_gracefully) watches an empty queue for TCP
    /// handshakes that were under way: 250 ms unless set, longer than the round trip of nearly every path. Later ones
    /// are reset. Unix sockets have no handshake.
    pub const fn handshake_grace(mut self, grace: Duration) -> Self {
        self.config.handshake_grace = grace;
        self
    }

    /// Registers the listener on `epoll` under `token`: on this crate's [`Epoll`](crate::Epoll), or on any other epoll
    /// descriptor, such as another event loop's.
    ///
    /// The listener, a waker (eventfd) and a timer (timerfd) are registered under the one token. Answer every event
    /// that carries that token with one pass. The acceptor keeps a duplicate of the epoll descriptor. See
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html).
    ///
    /// # Errors
    ///
    /// [`BuildError`], which gives the listener back: the budget is 0, the descriptor does not listen or is registered
    /// already, `epoll` is not an epoll, or descriptors, memory or `max_user_watches` ran out.
    pub fn register(self, epoll: impl AsFd, token: Token) -> Result<EpollAcceptor<L, F>, BuildError<L>> {
        let Self { listener, filter, gate, backlog, config } = self;
        if let Err(kind) = prepare(&listener, config.budget, backlog) {
            return Err(BuildError { kind, listener });
        }
        match EpollBackend::register(epoll.as_fd(), listener, token, config.trigger) {
            Ok(backend) => {
                let core = AcceptCore::new(backend, gate.into(), filter, config);
                core.backend().listener().is_served_by(core.control());
                Ok(EpollAcceptor { core })
            }
            Err((error, listener)) => Err(BuildError { kind: BuildErrorKind::of(error), listener }),
        }
    }

    /// Returns the error of a registration for which no epoll could be made.
    pub(crate) fn refused(self, error: io::Error) -> BuildError<L> {
        BuildError::system(error, self.listener)
    }
}

fn prepare(listener: &impl Listener, budget: u32, backlog: Option<u32>) -> Result<(), BuildErrorKind> {
    if budget == 0 {
        return Err(BuildErrorKind::ZeroBudget);
    }
    if !sys::is_listening(listener.as_fd()) {
        return Err(BuildErrorKind::NotListening);
    }
    match backlog.map(|backlog| listen(listener.as_fd(), backlog)) {
        Some(Err(errno)) => Err(BuildErrorKind::System(errno.into())),
        _ => Ok(()),
    }
}

impl From<NoGate> for Option<Gate> {
    fn from(_: NoGate) -> Self {
        None
    }
}

impl<L> BuildError<L> {
    /// Returns the kind of the error.
    #[must_use]
    pub const fn kind(&self) -> &BuildErrorKind {
        &self.kind
    }

    pub(crate) const fn system(error: io::Error, listener: L) -> Self {
        Self { kind: BuildErrorKind::System(error), listener }
    }

    /// Returns the listener; it may have become non-blocking.
    #[must_use = "dropping the listener closes it"]
    pub fn into_listener(self) -> L {
        self.listener
    }
}

impl BuildErrorKind {
    fn of(error: NotRegistered) -> Self {
        match error {
            NotRegistered::Add(errno) if errno.number() == libc::EEXIST => Self::AlreadyRegistered,
            NotRegistered::Add(errno) if errno.number() == libc::EINVAL => Self::NotEpoll,
            NotRegistered::Add(errno) => Self::System(EpollCtlError::kernel(Operation::Add, errno).into()),
            NotRegistered::Open(error) => Self::System(error),
        }
    }
}

/// Drops the listener, which closes it: `?` on an error of [`Builder::register`] does this. Take the listener out first
/// to keep it.
///
/// The kind is [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it was registered already, the system's own kind, or
/// [`InvalidInput`](io::ErrorKind::InvalidInput).
impl<L> From<BuildError<L>> for io::Error {
    fn from(error: BuildError<L>) -> Self {
        let kind = match &error.kind {
            BuildErrorKind::System(error) => error.kind(),
            BuildErrorKind::AlreadyRegistered => io::ErrorKind::AlreadyExists,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error.kind)
    }
}

impl<L> std::fmt::Debug for BuildError<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildError").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<L> std::fmt::Display for BuildError<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

/// The message contains the cause, so there is no source.
impl<L> std::error::Error for BuildError<L> {}
