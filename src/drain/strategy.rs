//! The three strategies, and how the end of a queue is recognised.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a pass knows that nothing more waits, short of a failing accept.
///
/// An accept on an empty queue costs more than one that succeeds, because the kernel builds the descriptor
/// first. Each proof is sound, because a connection enters the queue before its event is raised: one that comes
/// after the look raises an event of its own.
///
/// Unless [`Builder::proof`](crate::linux::Builder::proof) says otherwise it is `Depth` for TCP and MPTCP, and `Peek`
/// for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmptyCheck {
    /// Accept until EAGAIN (K50). Works everywhere, and is the dearest.
    UntilEagain,
    /// Ask poll(2) after each connection.
    Poll,
    /// Ask once how many wait (`tcpi_unacked` of tcp(7)'s `TCP_INFO`, K60), and take exactly that many. TCP and MPTCP;
    /// where the kernel cannot say, [`EmptyCheck::Poll`] serves instead.
    QueueLength,
}

/// How the listener is registered: [`LevelTriggered`], [`EdgeTriggered`], [`Exclusive`], or [`Trigger`] where
/// that is chosen at run time. There is no other: the trait is sealed.
pub trait Strategy: sealed::Sealed + Copy + Send + Sync {
    /// Which of the three it is.
    fn trigger(self) -> Trigger;
}

/// Registered level-triggered (`EPOLLIN`): the kernel reports the listener as long as its queue is not empty (K5).
///
/// The default, because no other makes fewer calls: a lone connection costs a wait and an accept
/// ([figures](crate::guide::benchmarks#which-strategy-and-which-budget)). The one to choose unless something else asks
/// for edges, or several epolls watch the listener ([`Exclusive`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LevelTriggered;

/// Registered edge-triggered (`EPOLLIN | EPOLLET`): the kernel reports arrivals, and says nothing of what was
/// left behind.
///
/// Each pass begins by telling the kernel to report what is queued (one `EPOLL_CTL_MOD`), before anything is
/// taken (K6, K10). From then on nothing is owed, however the pass ends; what was told needlessly vanishes at the
/// next wait, because the kernel looks at the queue again before it reports (K4).
///
/// # References
///
/// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html); K4, K6 and K10 of
/// [the kernel's rules](crate::guide::kernel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeTriggered;

/// Registered exclusively (`EPOLLIN | EPOLLEXCLUSIVE`, level-triggered): of several epolls that watch one listener an
/// arrival wakes one.
///
/// For workers in threads or processes with an epoll each.
///
/// Each worker builds an acceptor of its own on a duplicate of the listener, or on the one that it has inherited,
/// and registers it with its own epoll. The acceptors know nothing of each other. One that is awake pays nothing:
/// the kernel goes on reporting to whom it has told. One that *leaves* (full, out of descriptors, paused, stopped,
/// taken apart, dropped) gives its registration up and then announces the listener: a `shutdown(SHUT_WR)`, which on
/// a listening socket changes nothing, and has the kernel look at the queue once more for every registration that
/// is left. So the others get what was told to this one alone, in whichever process they are.
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::{Acceptor, Epoll, Exclusive, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let workers: Vec<_> = (0..4)
///     .map(|_| {
///         let listener = listener.try_clone()?;
///         Ok(std::thread::spawn(move || -> std::io::Result<()> {
///             let epoll = Epoll::new()?;
///             let mut acceptor = Exclusive::on(listener).register(&epoll, Token(0))?;
///             // ... wait, and answer each event by one pass, as with the other strategies.
///             assert_eq!(acceptor.ready().count(), 0, "nobody has connected yet");
///             Ok(())
///         }))
///     })
///     .collect::<std::io::Result<_>>()?;
/// for worker in workers {
///     worker.join().unwrap()?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// ## A burst is served by one worker
///
/// The kernel tells the first in the order of registration that is asleep in its wait. While that one takes its
/// connections the others sleep, and what it has left in the queue (its budget used up, the loop left early, a pass
/// that took one) stays there until it waits again, or until the next arrival: that finds it awake, and wakes
/// another. A worker that may spend long between two waits should hand its connections to other threads, or
/// register [`LevelTriggered`], where everybody is told.
///
/// ## Load is not balanced
///
/// With all asleep the same worker is told each time: the one that was registered first. (Who has left is
/// registered anew when it wakes, behind the others.) For an even spread use `SO_REUSEPORT`, with a listener and a
/// queue for each worker.
///
/// ## A worker that is killed announces nothing
///
/// A process that is killed, or calls `_exit`, runs no code. If it was the one that was told, the others learn of
/// what it leaves in the queue with the next arrival, and not before. The same holds for an acceptor that is
/// forgotten (`std::mem::forget`): it stays registered, and is told for nobody. Where workers get killed, let them
/// share one epoll, register [`LevelTriggered`], or use `SO_REUSEPORT`.
///
/// ## Register after the fork
///
/// Processes that inherit an epoll share its registrations: that is one worker, not several. Let each process make
/// its epoll, and register there the listener that it has inherited.
///
/// ## An epoll that is hosted by another loop
///
/// Nobody sleeps in the wait of an epoll that is itself watched by an event loop: an arrival wakes it and goes on
/// to the next. Nobody is stranded, and nothing gained over [`LevelTriggered`].
///
/// ## TCP, MPTCP and Unix listeners
///
/// Of other families nobody has shown that a shutdown for writing announces, and does no harm.
///
/// # References
///
/// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), `EPOLLEXCLUSIVE`; the rest is
/// the kernel's behaviour, K25, K26, K70 and K71 of
/// [the kernel's rules](crate::guide::kernel).
#[doc(alias = "EPOLLEXCLUSIVE")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exclusive;

/// One of the three, chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// As [`LevelTriggered`].
    Level,
    /// As [`EdgeTriggered`].
    Edge,
    /// As [`Exclusive`](struct@Exclusive).
    Exclusive,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::LevelTriggered {}
    impl Sealed for super::EdgeTriggered {}
    impl Sealed for super::Exclusive {}
    impl Sealed for super::Trigger {}
}

/// `level`, `edge` or `exclusive`, as [`FromStr`] reads them.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Level => "level",
            Self::Edge => "edge",
            Self::Exclusive => "exclusive",
        })
    }
}

/// No trigger has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("a trigger is level, edge or exclusive")]
pub struct UnknownTrigger(());

/// From a command line or a configuration.
///
/// ```
/// use epoll_acceptor::Trigger;
///
/// assert_eq!("edge".parse(), Ok(Trigger::Edge));
/// assert_eq!("Edge".parse::<Trigger>().unwrap_err().to_string(), "a trigger is level, edge or exclusive");
/// ```
impl FromStr for Trigger {
    type Err = UnknownTrigger;

    fn from_str(text: &str) -> Result<Self, UnknownTrigger> {
        match text {
            "level" => Ok(Self::Level),
            "edge" => Ok(Self::Edge),
            "exclusive" => Ok(Self::Exclusive),
            _ => Err(UnknownTrigger(())),
        }
    }
}

impl Strategy for LevelTriggered {
    fn trigger(self) -> Trigger {
        Trigger::Level
    }
}

impl Strategy for EdgeTriggered {
    fn trigger(self) -> Trigger {
        Trigger::Edge
    }
}

impl Strategy for Exclusive {
    fn trigger(self) -> Trigger {
        Trigger::Exclusive
    }
}

impl Strategy for Trigger {
    fn trigger(self) -> Self {
        self
    }
}
