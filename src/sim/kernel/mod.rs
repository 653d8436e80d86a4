//! A pretended Linux: listeners, accept queues, epolls, sleeping threads. Deterministic, no descriptor, no
//! clock.
//!
//! MUST NOT know anything of acceptors, and MUST NOT decide: every decision of the kernel is a function of
//! [`Rules`], the rest is bookkeeping. One call is one step: nothing happens inside it, and nothing between
//! two calls. The whole state is a value, so a search can clone it, compare it and hash it.
//!
//! ```
//! use epoll_acceptor::sim::kernel::{Family, Kernel, Mask};
//!
//! let mut kernel = Kernel::new();
//! let listener = kernel.listener(Family::Tcp4, 16)?;
//! let epoll = kernel.epoll()?;
//! kernel.add(epoll, listener, Mask::IN | Mask::ET, 7)?;
//!
//! let clients = kernel.address(listener)?;
//! kernel.connect(clients).unwrap();
//! kernel.connect(clients).unwrap();
//! assert_eq!(kernel.wait(epoll, 8)?.len(), 1, "one edge for two arrivals");
//! kernel.accept(listener)?;
//! assert_eq!(kernel.wait(epoll, 8)?.len(), 0, "and none for the one that was left");
//! # Ok::<(), epoll_acceptor::Errno>(())
//! ```
//!
//! # What it holds
//!
//! The numbers are those of [the kernel's rules](crate::guide::kernel), which tell each rule and how it is checked.
//! `tests/parity` plays the same calls on the model and on the real kernel and compares every result.
//!
//! * Registrations (`epoll.rs`, K1, K2, K4-K7, K9-K16, K21, K25, K70-K72): the four ways onto the ready list,
//!   keys, the second look at delivery, level, edge, one-shot, exclusive, mask 0, order, errors and their
//!   order, identity by file and number, `dup`, `close`, nesting.
//! * Sleeping threads (`wait.rs`, K17, K18, K28): last to sleep is first to wake, the chain of wake-ups,
//!   signals, deadlines, an epoll closed under its sleeper.
//! * Listeners (`listener.rs`, K3, K23, K24, K30-K38, K60, K73, K79): capacity, a full queue, half-open requests,
//!   arrivals in two steps, listening anew, shutdown by family, the bar, close.
//! * Accept (`listener.rs`, K33, K50-K52): the order of work, the full descriptor table before the queue, any
//!   error by script, taking its connection along or not.
//! * Connections (`connection.rs`, K34, K35, K67): peers that send, quit and reset in every state, the time
//!   queued.
//! * Rings and alarms: an eventfd that is never read, a timerfd on the kernel's own time.
//!
//! # What it cannot see
//!
//! * **Inside a call.** Each is atomic. An arrival during a scan, which may report one edge more than
//!   necessary; `epoll_wait` with timeout 0 that finds nothing because another thread is scanning (kernels
//!   before 2026); two threads in one `epoll_ctl`; a sleeper that is timed out or signalled and called in the
//!   same instant (here: the call goes to the next).
//! * **Blocking calls** but the wait: an accept or a Unix connect that sleeps.
//! * **Processes.** One descriptor table, no fork, no descriptor passing. Threads share everything.
//! * **The network.** No packet is lost or late unless the caller makes it so: a handshake happens when `syn`
//!   and `ack` are called, a client whose SYN was dropped tries again when the caller says. A half-open
//!   request does not time out and does not outlive a shutdown. The address is the socket: no reuseport
//!   group, no migration, no port that gets lost; the peer has no address. A Unix client that connects to a
//!   full queue is turned away at once.
//! * **Sockets as data streams**: bytes are counted, and only in one direction. No urgent data, no error
//!   queue, no buffers that fill, no shutdown or linger of a connection, no socket options, no fast open. The
//!   clients of an MPTCP listener speak plain TCP; one that speaks MPTCP would be born shut from a listener
//!   that was (K24). A connection born shut sends its end at once; that its registrations are called when the
//!   client acknowledges it is left out.
//! * **Limits** other than the descriptor table and the number of registrations; those on the number of paths
//!   through nested epolls; memory; permissions. Any error they cause at accept can be scripted.
//! * `SOCK_DESTROY`, `EPOLLWAKEUP`, busy polling, priorities, the processor a thread wakes on.
//! * **Cost.** A call takes no time; the clock moves when [`Kernel::advance`] is called.
//! * **Other kernels** than 6.18.
#![forbid(unsafe_code)]

mod connection;
mod epoll;
mod errno;
mod files;
mod listener;
mod mask;
mod rules;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use crate::drain::errno::Errno;

pub use connection::{ConnId, Fate};
pub use epoll::Event;
pub use files::Fd;
pub use listener::{Address, ConnectError, Family, Fault, Shut};
pub use mask::Mask;
pub use rules::{AfterReport, Linux, Rules};
pub use wait::{Sleep, Thread};

/// A pretended kernel: one process, its descriptors, its threads, and the peers of its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel<R: Rules = Linux> {
    now: u64,
    table: BTreeMap<Fd, files::FileId>,
    table_max: u32,
    registrations_max: usize,
    syn_cookies: bool,
    /// Invariant: a file is here as long as a descriptor names it or a thread sleeps in it.
    files: BTreeMap<files::FileId, files::File>,
    files_made: u32,
    /// Invariant: a connection is here as long as one of its two ends is.
    connections: BTreeMap<ConnId, connection::Connection>,
    connections_made: u32,
    sleepers: BTreeMap<Thread, wait::Sleeper>,
    signalled: BTreeSet<Thread>,
    rules: PhantomData<R>,
}

impl Kernel {
    /// A kernel that keeps the rules of Linux, with nothing open.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rules(Linux)
    }
}

impl<R: Rules> Kernel<R> {
    /// A kernel that keeps these rules.
    #[must_use]
    pub fn with_rules(_rules: R) -> Self {
        Self {
            now: 0,
            table: BTreeMap::new(),
            table_max: u32::MAX,
            registrations_max: usize::MAX,
            syn_cookies: true,
            files: BTreeMap::new(),
            files_made: 0,
            connections: BTreeMap::new(),
            connections_made: 0,
            sleepers: BTreeMap::new(),
            signalled: BTreeSet::new(),
            rules: PhantomData,
        }
    }

    /// No descriptor number from this one on is given out any more (`RLIMIT_NOFILE`). Open ones stay open.
    pub fn set_descriptor_limit(&mut self, limit: u32) {
        self.table_max = limit;
    }

    /// No registration beyond this many is accepted, over all epolls (`max_user_watches`).
    pub fn set_registration_limit(&mut self, limit: usize) {
        self.registrations_max = limit;
    }

    /// Whether a full queue of half-open requests is answered by cookies (the default) or not at all.
    pub fn set_syn_cookies(&mut self, on: bool) {
        self.syn_cookies = on;
    }

    /// The kernel's time, in nanoseconds since it was made.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets time pass, in nanoseconds: alarms go off in their order, then sleepers whose time is over wake.
    pub fn advance(&mut self, nanoseconds: u64) {
        let end = self.now.saturating_add(nanoseconds);
        while let Some((due, timer)) = self.next_alarm().filter(|(due, _)| *due <= end) {
            self.now = due;
            self.go_off(timer);
        }
        self.now = end;
        self.end_overdue_sleeps();
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}
