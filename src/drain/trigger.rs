//! The three triggers, and how a pass recognizes the end of the queue.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The check by which a pass finds the end of the queue.
///
/// An accept on an empty queue costs more than one that succeeds, because the kernel makes the descriptor first (K50).
/// Each check is sound, because a connection enters the queue before its event is raised (K3): one that arrives after
/// the check raises an event of its own.
///
/// The default is `QueueLength` for TCP and MPTCP, and `Poll` for all others:
/// [`Builder::empty_check`](crate::Builder::empty_check).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmptyCheck {
    /// Accept until EAGAIN (K50). Works everywhere, and costs most.
    UntilEagain,
    /// Ask poll(2) after each connection.
    Poll,
    /// Read the queue's length once (`tcpi_unacked` of tcp(7)'s `TCP_INFO`, K60), and accept that many. TCP and MPTCP;
    /// where the kernel does not report it, [`EmptyCheck::Poll`] is used instead.
    QueueLength,
}

/// The registration of a listener. [`LevelTriggered::on`], [`EdgeTriggered::on`], [`Exclusive::on`] and
/// [`Trigger::on`] begin to build an acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// As [`LevelTriggered`].
    Level,
    /// As [`EdgeTriggered`].
    Edge,
    /// As [`Exclusive`](struct@Exclusive).
    Exclusive,
}

/// Registers the listener level-triggered (`EPOLLIN`): the kernel reports it while its queue is not empty (K5).
///
/// The default choice: no other trigger needs fewer calls. A lone connection costs a wait and an accept
/// ([figures](crate::guide::benchmarks)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LevelTriggered;

/// Registers the listener edge-triggered (`EPOLLIN | EPOLLET`): the kernel reports arrivals, and not what a pass left
/// in the queue.
///
/// So each pass begins with an `EPOLL_CTL_MOD`, which makes the kernel report what is queued (K6, K10). From then on no
/// wakeup is lost, however the pass ends; the next wait drops a report that proves needless (K4). See
/// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html); K4, K6 and K10 of [the kernel's
/// rules](crate::guide::kernel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeTriggered;

/// Registers the listener with `EPOLLIN | EPOLLEXCLUSIVE`, level-triggered: of several epolls that watch one listener,
/// an arrival wakes one.
///
/// For worker threads or processes with an epoll each. Each worker builds an acceptor on a duplicate of the listener,
/// or on the one that it inherited. An acceptor that *stops listening* (full, out of descriptors, paused, stopped,
/// dropped) removes its registration and then wakes the other epolls with `shutdown(SHUT_WR)`, which changes nothing on
/// a listening socket but makes the kernel check the queue for every remaining registration (K70).
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
///             // ... wait, and answer each event by one pass, as with the other triggers.
///             assert_eq!(acceptor.ready().count(), 0, "no client has connected yet");
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
/// See [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), `EPOLLEXCLUSIVE`; K25, K26, K70 and K71
/// of [the kernel's rules](crate::guide::kernel).
///
/// ## Latency of a burst
///
/// The kernel wakes the first registered epoll that sleeps in its wait (K25). What that worker leaves in the queue (its
/// budget used up, the loop left early) stays there until the worker waits again, or until the next arrival finds the
/// worker awake and wakes another. A worker that may compute for long between two waits should hand its connections to
/// other threads, or register [`LevelTriggered`], which wakes all.
///
/// ## Uneven load
///
/// When all workers sleep, the same one is woken each time: the first registered (K25). For an even spread use
/// `SO_REUSEPORT`, with a listener and a queue for each worker.
///
/// ## Killed workers
///
/// A process that is killed runs no code. If the kernel had woken it, what it leaves in the queue is reported to the
/// others only with the next arrival (K26). The same holds for an acceptor that is forgotten (`std::mem::forget`).
/// Where workers get killed, let them share one epoll, register [`LevelTriggered`], or use `SO_REUSEPORT`.
///
/// ## Fork
///
/// Processes that inherit an epoll share its registrations: that is one worker, not several. Let each process create an
/// epoll of its own and register the inherited listener there.
///
/// ## Nested epolls
///
/// No thread sleeps in the wait of an epoll that is itself watched by an event loop: an arrival wakes all such epolls
/// (K72). Nothing is lost, and nothing gained over [`LevelTriggered`].
///
/// ## Other families
///
/// `shutdown(SHUT_WR)` was tested to wake, and do no harm, on TCP, MPTCP and Unix listeners only.
#[doc(alias = "EPOLLEXCLUSIVE")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exclusive;

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

/// A text that names no trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("the trigger must be level, edge or exclusive")]
pub struct UnknownTrigger(());

/// For command lines and configuration files.
///
/// ```
/// use epoll_acceptor::Trigger;
///
/// assert_eq!("edge".parse(), Ok(Trigger::Edge));
/// assert_eq!("Edge".parse::<Trigger>().unwrap_err().to_string(), "the trigger must be level, edge or exclusive");
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
