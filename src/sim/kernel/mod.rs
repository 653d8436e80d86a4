//! A simulated Linux kernel: listeners, accept queues, epolls and blocked threads.
//!
//! Deterministic, without descriptors or a clock. The whole state is a value: a search can clone, compare and
//! hash it. Every call is atomic and nothing happens between two calls.
//!
//! MUST NOT know about acceptors. Every decision of the kernel MUST be a function of [`Rules`]; the rest of the
//! module is bookkeeping.
//!
//! ```
//! use epoll_acceptor::sim::kernel::{Family, Kernel, Mask};
//!
//! let mut kernel = Kernel::new();
//! let listener = kernel.listener(Family::Tcp4, 16)?;
//! let epoll = kernel.epoll()?;
//! kernel.add(epoll, listener, Mask::IN | Mask::ET, 7)?;
//!
//! let address = kernel.address(listener)?;
//! kernel.connect(address).unwrap();
//! kernel.connect(address).unwrap();
//! assert_eq!(kernel.wait(epoll, 8)?.len(), 1, "one edge for two arrivals");
//! kernel.accept(listener)?;
//! assert_eq!(kernel.wait(epoll, 8)?.len(), 0, "no edge for the connection still queued");
//! # Ok::<(), epoll_acceptor::socket::Errno>(())
//! ```
//!
//! # Scope
//!
//! K-numbers refer to [the kernel's rules](crate::guide::kernel), which state each rule and the test that checks
//! it. `tests/real/model/parity` makes the same calls on the model and on the real kernel and compares every result.
//!
//! * Registrations (`epoll.rs`, K1, K2, K4-K7, K9-K16, K21, K25, K70-K72): the four ways onto the ready list,
//!   wakeup keys, the second poll at delivery, level-triggered, edge-triggered, one-shot and exclusive
//!   registrations, mask 0, order, errors and their precedence, identity by file and number, `dup`, `close`,
//!   nesting.
//! * Blocked threads (`wait.rs`, K17, K18, K28): LIFO wakeup, chained wakeups, signals, deadlines, closing an
//!   epoll while a thread is blocked in it.
//! * Listeners (`listener.rs`, K3, K23, K24, K30-K38, K60, K73, K79): capacity, a full queue, half-open requests,
//!   arrivals in two steps, a second `listen`, shutdown by family, `IP_MINTTL`, close.
//! * Accept (`listener.rs`, K33, K50-K52): order of the checks, a full descriptor table, injected errors that
//!   do or do not consume a connection.
//! * Connections (`connection.rs`, K34, K35, K67): peers that send, close and reset in every state; the time in
//!   the queue.
//! * An eventfd that is never read, and a timerfd on the kernel's virtual time (`files.rs`).
//!
//! # Limitations
//!
//! * **Inside a call.** An arrival during a scan, which may report one extra edge; a false 0 from `epoll_wait`
//!   with timeout 0 while another thread scans (kernels before 2026); two threads in one `epoll_ctl`; a thread
//!   that times out or is signalled at the instant it is woken (the model gives the wakeup to the next thread).
//! * **Blocking calls** other than `epoll_wait`: a blocking accept, a blocking Unix connect.
//! * **Processes.** One descriptor table, no fork, no descriptor passing. Threads share everything.
//! * **The network.** Packets are lost or late only if the caller says so: a handshake advances when `syn` and
//!   `ack` are called, and the caller repeats a dropped SYN. A half-open request neither times out nor survives
//!   a shutdown. An [`Address`] is a socket: no reuseport group, no migration, no port lost to another socket;
//!   peers have no address. A Unix connect to a full queue fails at once.
//! * **Data streams.** Bytes are counted, in one direction. No urgent data, error queue, full buffers, shutdown
//!   or linger of a connection, socket options, or fast open. Clients of an MPTCP listener speak plain TCP: the
//!   connection of an MPTCP client would inherit a shutdown of the listener (K24). A connection that inherited a
//!   shutdown does not wake its registrations when the client acknowledges its FIN.
//! * **Limits** other than the descriptor table and the number of registrations: the number of paths through
//!   nested epolls, memory, permissions. [`Kernel::fail_accept`] injects the errors that they cause at accept.
//! * `SOCK_DESTROY`, `EPOLLWAKEUP`, busy polling, priorities, the CPU on which a thread wakes.
//! * **Cost.** A call takes no time; [`Kernel::advance`] moves the clock.
//! * **Kernels** other than 6.18, unless [`Rules`] has the difference.
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

pub use connection::{ConnId, ConnState};
pub use epoll::Event;
pub use files::Fd;
pub use listener::{Address, ConnectError, Family, Fault, Shut};
pub use mask::Mask;
pub use rules::{AfterReport, Linux, Rules};
pub use wait::{Sleep, Thread};

/// A simulated kernel: one process, its descriptors and threads, and the peers of its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel<R: Rules = Linux> {
    now: u64,
    table: BTreeMap<Fd, files::FileId>,
    table_max: u32,
    registrations_max: usize,
    syn_cookies: bool,
    fills_tcp_info: bool,
    /// Invariant: holds a file while a descriptor refers to it or a thread is blocked in it.
    files: BTreeMap<files::FileId, files::File>,
    next_file: u32,
    /// Invariant: holds a connection while one of its two ends is open.
    connections: BTreeMap<ConnId, connection::Connection>,
    next_connection: u32,
    sleepers: BTreeMap<Thread, wait::Sleeper>,
    signalled: BTreeSet<Thread>,
    rules: PhantomData<R>,
}

impl Kernel {
    /// Creates a kernel with the rules of Linux and no open files.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rules(Linux)
    }
}

impl<R: Rules> Kernel<R> {
    /// Creates a kernel with the given rules and no open files.
    #[must_use]
    pub fn with_rules(_rules: R) -> Self {
        Self {
            now: 0,
            table: BTreeMap::new(),
            table_max: u32::MAX,
            registrations_max: usize::MAX,
            syn_cookies: true,
            fills_tcp_info: true,
            files: BTreeMap::new(),
            next_file: 0,
            connections: BTreeMap::new(),
            next_connection: 0,
            sleepers: BTreeMap::new(),
            signalled: BTreeSet::new(),
            rules: PhantomData,
        }
    }

    /// Limits new descriptor numbers to less than `limit` (`RLIMIT_NOFILE`). Open descriptors stay open.
    pub fn set_descriptor_limit(&mut self, limit: u32) {
        self.table_max = limit;
    }

    /// Limits the registrations of all epolls together (`max_user_watches`).
    pub fn set_registration_limit(&mut self, limit: usize) {
        self.registrations_max = limit;
    }

    /// Chooses whether a full SYN queue answers with SYN cookies (the default) or drops the SYN.
    pub fn set_syn_cookies(&mut self, on: bool) {
        self.syn_cookies = on;
    }

    /// Chooses whether `TCP_INFO` has the depth of a queue and the times of a connection (the default), or zeros, as on
    /// gVisor.
    pub fn set_tcp_info(&mut self, fills: bool) {
        self.fills_tcp_info = fills;
    }

    /// Returns the virtual time, in nanoseconds since the kernel was created.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Advances the clock: expires timers in order, then times out waits past their deadline.
    pub fn advance(&mut self, nanoseconds: u64) {
        let end = self.now.saturating_add(nanoseconds);
        while let Some((due, timer)) = self.next_timer().filter(|(due, _)| *due <= end) {
            self.now = due;
            self.expire(timer);
        }
        self.now = end;
        self.time_out_waits();
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}
