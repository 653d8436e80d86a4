//! Acceptors on real listeners: how they are built, and how the listener comes back.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::control::{EpollCtlError, Tried};
use super::listener::Listener;
use super::port::{EpollBackend, NotRegistered};
use super::sys;
use super::token::Token;
use crate::admission::gate::Gate;
use crate::admission::policy::{Admission, Unlimited};
use crate::admission::refusal::Refusal;
use crate::drain::acceptor::{Key, Steps};
use crate::drain::core::{Drain, Plan, Step};
use crate::drain::shared::Control;
use crate::drain::strategy::{EdgeTriggered, EmptyCheck, Exclusive, LevelTriggered, Strategy, Trigger};

/// An [`Acceptor`](crate::drain::Acceptor) on a real listener and a real epoll.
///
/// Made by [`LevelTriggered::on`], [`EdgeTriggered::on`], [`Exclusive::on`] or [`Trigger::on`]. It owns the listener
/// and its registration; dropping it deregisters the listener and closes it, which resets whoever is still queued: take
/// the listener out with [`into_listener`](Self::into_listener) to hand it on instead.
///
/// It is `Send` and `Sync`: build it on one thread and run it on another. One thread at a time drives it
/// (`&mut self`); everybody else has a [`Control`].
///
/// ## Register after the last fork
///
/// A forked child's copy shares the epoll, and every registration, with its parent. Dropping it there, or taking the
/// listener out, deregisters nothing, since that would deafen the parent; so all a child should do with it is to drop
/// it. One that runs passes (a server that turned itself into a daemon after registering) does own it from then on, as
/// long as the parent does not. To take the listener out there, [stop](Control::stop) it and begin a pass first: that
/// deregisters it in whichever process. Processes are told apart by their id: not across pid namespaces.
#[must_use = "dropping it closes the listener"]
pub struct EpollAcceptor<L: Listener, S: Strategy = LevelTriggered, A: Admission = Unlimited> {
    pub(super) drain: Drain<EpollBackend<L>, S, A>,
}

/// What an acceptor is to be: its listener, trigger, budget, proof and admission.
///
/// Everything but the listener and the trigger has a default.
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Admission, Epoll, Gate, LevelTriggered, PeerLimit, EmptyCheck, Refusal, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let epoll = Epoll::new()?;
/// let gate = Gate::new(10_000);
/// let acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?)
///     .admission(gate.clone().and(PeerLimit::new(50)))
///     .budget(16) // connections that are open wait for less
///     .empty_check(EmptyCheck::Poll)
///     .refuse_at_most(1_000, 100)
///     .refuse_when_exhausted(Refusal::Reset)
///     .register(&epoll, Token(0))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is registered before `register`"]
pub struct Builder<L, S, A = Unlimited> {
    listener: L,
    strategy: S,
    admission: A,
    plan: Plan,
}

/// Why a listener could not be registered. It comes back: [`into_listener`](Self::into_listener).
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Epoll, LevelTriggered, BuildErrorKind, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let epoll = Epoll::new()?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let refused = LevelTriggered::on(listener).budget(0).register(&epoll, Token(0)).unwrap_err();
/// assert!(matches!(refused.kind(), BuildErrorKind::ZeroBudget));
/// let acceptor = LevelTriggered::on(refused.into_listener()).register(&epoll, Token(0))?;
/// # Ok(())
/// # }
/// ```
pub struct BuildError<L> {
    cause: BuildErrorKind,
    listener: L,
}

/// What was wrong with a registration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// The budget is 0.
    #[error("a budget of 0 would never accept: take 1 or more")]
    ZeroBudget,
    /// The descriptor is no listening socket.
    #[error("the descriptor is not a listening socket: call listen on it first")]
    NotListening,
    /// The same descriptor is registered on this epoll already.
    #[error(
        "this descriptor is registered on this epoll already: delete that registration, or duplicate the listener"
    )]
    AlreadyRegistered,
    /// The descriptor that was given as the epoll is none.
    #[error("the descriptor given as the epoll is not an epoll: pass one from epoll_create1")]
    NotEpoll,
    /// The system refused for another reason.
    #[error("the system refused the registration: {0}{remedy}", remedy = remedy(.0))]
    System(io::Error),
}

/// What `epoll_ctl` refuses comes with a remedy of its own.
fn remedy(why: &io::Error) -> &'static str {
    match why.raw_os_error() {
        Some(libc::EMFILE) => {
            "; an acceptor takes three besides its listener: close some, or raise RLIMIT_NOFILE"
        }
        Some(libc::ENFILE) => "; close some files on this machine, or raise /proc/sys/fs/file-max",
        _ => "",
    }
}

/// How many attempts a pass makes unless told otherwise.
const BUDGET: u32 = 64;

macro_rules! on {
    ($($strategy:ident: $example:literal),*) => {$(
        impl $strategy {
            /// Begins to build an acceptor on `listener`.
            ///
            /// The listener is made non-blocking when it is registered, for everyone who holds a duplicate of
            /// it: the flag belongs to the open socket, not to the descriptor.
            ///
            /// ```
            /// use std::net::TcpListener;
            #[doc = $example]
            ///
            /// # fn main() -> std::io::Result<()> {
            /// let epoll = Epoll::new()?;
            /// let mut acceptor = LISTEN::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(1))?;
            /// assert_eq!(acceptor.ready().count(), 0, "nobody has connected yet");
            /// # Ok(())
            /// # }
            /// ```
            pub const fn on<L: Listener>(listener: L) -> Builder<L, Self> {
                Builder::new(listener, Self)
            }
        }
    )*};
}

on! {
    LevelTriggered: "use epoll_acceptor::{Acceptor, Epoll, LevelTriggered as LISTEN, Token};",
    EdgeTriggered: "use epoll_acceptor::{Acceptor, Epoll, EdgeTriggered as LISTEN, Token};",
    Exclusive: "use epoll_acceptor::{Acceptor, Epoll, Exclusive as LISTEN, Token};"
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
    pub const fn on<L: Listener>(self, listener: L) -> Builder<L, Self> {
        Builder::new(listener, self)
    }
}

impl<L: Listener, S: Strategy> Builder<L, S> {
    const fn new(listener: L, strategy: S) -> Self {
        let plan = Plan::with_budget(BUDGET);
        Self { listener, strategy, admission: Unlimited, plan }
    }
}

impl<L: Listener, S: Strategy, A: Admission> Builder<L, S, A> {
    /// How many attempts one pass makes at most, whatever becomes of them; 64 unless set. More are left for the
    /// next wait, so that a flood of new connections does not starve those that are open.
    ///
    /// More than 64 makes a connection no cheaper, since one wait and one count shared by so many are next to nothing,
    /// and keeps the open connections waiting for longer: see
    /// [the figures](crate::guide::benchmarks#which-strategy-and-which-budget).
    ///
    /// 0 is refused by [`register`](Self::register).
    pub const fn budget(mut self, attempts: u32) -> Self {
        self.plan.budget = attempts;
        self
    }

    /// How a pass knows that nothing more waits, instead of the best for the listener's family.
    pub const fn empty_check(mut self, proof: EmptyCheck) -> Self {
        self.plan.proof = Some(proof);
        self
    }

    /// Refuses at most `per_second` connections a second, and `burst` at once; 0 counts as 1. Then it takes none from
    /// the queue until the next may be refused, so that shedding costs no more than was foreseen, however many come.
    ///
    /// Not bounded by it are those who are refused when the listener is [wound down](EpollAcceptor::wind_down).
    ///
    /// ## Those who would be let in wait as well
    ///
    /// The queue is one, and who stands in it is not known before it is taken. Without this, an acceptor refuses as
    /// fast as it can, which is over soonest for whoever stands behind a flood.
    pub const fn refuse_at_most(mut self, per_second: u32, burst: u32) -> Self {
        self.plan.refusals = Some((per_second, burst));
        self
    }

    /// Keeps a descriptor in reserve, and when descriptors have run out (EMFILE, ENFILE) takes whoever waits with it,
    /// to refuse them so. Without this they wait in the queue until descriptors are to be had.
    ///
    /// A pass refuses as many as its budget allows; if others wait still, the acceptor backs off as it would without: for
    /// 10 ms, doubling to 200 ms. The reserve is made again as soon as that is possible. If another thread is quicker to take
    /// it, those who wait go on waiting.
    pub fn refuse_when_exhausted(mut self, refusal: Refusal) -> Self {
        self.plan.when_exhausted = Some(refusal);
        self
    }

    /// Limits the connections in service by `gate`, together with everyone else who uses it.
    pub fn gate(self, gate: &Gate) -> Builder<L, S, Gate> {
        self.admission(gate.clone())
    }

    /// Lets this policy decide who may come in.
    pub fn admission<B: Admission>(self, admission: B) -> Builder<L, S, B> {
        Builder { listener: self.listener, strategy: self.strategy, admission, plan: self.plan }
    }

    /// Registers the listener on `epoll`, under `token`: on this crate's [`Epoll`](super::Epoll), or on any other
    /// epoll descriptor, such as another event loop's.
    ///
    /// The listener, a wake-up (eventfd) and a timer (timerfd) are registered under the one token. Every event
    /// with that token is answered by one pass. The acceptor keeps a duplicate of the epoll descriptor.
    ///
    /// # Errors
    ///
    /// [`BuildError`], which gives the listener back: the budget is 0, the descriptor does not listen, is
    /// registered already, is closed, `epoll` is none, or descriptors, memory or `max_user_watches` have run
    /// out.
    ///
    /// # References
    ///
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html)
    pub fn register(self, epoll: impl AsFd, token: Token) -> Result<EpollAcceptor<L, S, A>, BuildError<L>> {
        let Self { listener, strategy, admission, plan } = self;
        if let Err(cause) = check(&listener, plan.budget) {
            return Err(BuildError { cause, listener });
        }
        match EpollBackend::register(epoll.as_fd(), listener, token, strategy.trigger()) {
            Ok(port) => Ok(EpollAcceptor { drain: Drain::new(port, strategy, admission, plan) }),
            Err((why, listener)) => Err(BuildError { cause: BuildErrorKind::of(why), listener }),
        }
    }
}

impl<L: Listener, S: Strategy, A: Admission> Builder<L, S, A> {
    /// What [`register`](Self::register) says when there is not even an epoll to register on.
    pub(crate) fn refused(self, why: io::Error) -> BuildError<L> {
        BuildError::system(why, self.listener)
    }
}

fn check(listener: &impl Listener, budget: u32) -> Result<(), BuildErrorKind> {
    if budget == 0 {
        return Err(BuildErrorKind::ZeroBudget);
    }
    if sys::is_listening(listener.as_fd()) { Ok(()) } else { Err(BuildErrorKind::NotListening) }
}

impl<L: Listener, S: Strategy, A: Admission> EpollAcceptor<L, S, A> {
    /// The listener, to ask its address for example. Closing or shutting it down is the acceptor's death.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.drain.port().listener()
    }

    /// Takes the acceptor apart and gives the listener back: registered no more, non-blocking, and with
    /// everything still queued that was.
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use epoll_acceptor::{Epoll, LevelTriggered, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let epoll = Epoll::new()?;
    /// let acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(0))?;
    /// let client = TcpStream::connect(acceptor.listener().local_addr()?)?;
    ///
    /// let listener = acceptor.into_listener();
    /// assert_eq!(listener.accept()?.1, client.local_addr()?, "who was queued still is");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "dropping the listener closes it and resets whoever is queued"]
    pub fn into_listener(mut self) -> L {
        self.drain.retire();
        self.drain.port_mut().take_listener().expect("the listener is here until it is taken out")
    }
}

impl<L: Listener, S: Strategy, A: Admission> Steps for EpollAcceptor<L, S, A> {
    type Stream = L::Stream;
    type Permit = A::Permit;

    #[inline]
    fn begin(&mut self, whole: bool, key: Key) {
        self.drain.begin(whole, key);
    }

    #[inline]
    fn advance(&mut self, key: Key) -> Step<L::Stream, A::Permit> {
        // Converted when everything is counted and the permit is with it: a conversion that panics loses neither.
        self.drain.advance(key).map(|taken| taken.map(|connection| connection.map(L::Stream::from)))
    }

    fn handle(&self) -> Control {
        self.drain.handle()
    }
}

impl<L: Listener + fmt::Debug, S: Strategy, A: Admission> fmt::Debug for EpollAcceptor<L, S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollAcceptor")
            .field("listener", self.listener())
            .field("state", &self.handle().state())
            .finish_non_exhaustive()
    }
}

impl<L> BuildError<L> {
    /// What was wrong.
    #[must_use]
    pub const fn kind(&self) -> &BuildErrorKind {
        &self.cause
    }

    pub(crate) const fn system(why: io::Error, listener: L) -> Self {
        Self { cause: BuildErrorKind::System(why), listener }
    }

    /// The listener, as it was given; it may have become non-blocking.
    #[must_use = "dropping the listener closes it"]
    pub fn into_listener(self) -> L {
        self.listener
    }
}

impl BuildErrorKind {
    fn of(why: NotRegistered) -> Self {
        match why {
            NotRegistered::Added(errno) if errno.number() == libc::EEXIST => Self::AlreadyRegistered,
            NotRegistered::Added(errno) if errno.number() == libc::EINVAL => Self::NotEpoll,
            NotRegistered::Added(errno) => Self::System(EpollCtlError::kernel(Tried::Add, errno).into()),
            NotRegistered::Made(error) => Self::System(error),
        }
    }
}

/// Drops the listener, and so closes it: `?` on an error of [`Builder::register`] does. Where the listener is to live
/// on, take it out before.
///
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it was registered already, the system's own kind, or
/// [`InvalidInput`](io::ErrorKind::InvalidInput).
impl<L> From<BuildError<L>> for io::Error {
    fn from(error: BuildError<L>) -> Self {
        let kind = match &error.cause {
            BuildErrorKind::System(error) => error.kind(),
            BuildErrorKind::AlreadyRegistered => io::ErrorKind::AlreadyExists,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error.cause)
    }
}

impl<L> fmt::Debug for BuildError<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildError").field("kind", &self.cause).finish_non_exhaustive()
    }
}

impl<L> fmt::Display for BuildError<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

/// Its sentence says all: there is no source behind it.
impl<L> std::error::Error for BuildError<L> {}
