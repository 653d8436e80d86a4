//! Counters of an acceptor.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use super::errno::{Errno, ErrnoClass};
use super::state::State;
use super::state_times::{StateTimes, TimeInStates};
use crate::admission::histogram::{AtomicHistogram, Histogram};
use crate::admission::refusal::Cause;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of an acceptor since it was registered.
        ///
        /// Every attempt to accept is one of seven: `attempts = delivered + refused + aborted + interrupted + empty +
        /// exhausted + fatal`. Exact while the owner waits; if another thread reads them while the owner works, the
        /// parts may be one step apart. The counters `refused_…`, one for each [`Cause`], add up to `refused`, and the
        /// counters `exhausted_…` to `exhausted`.
        ///
        /// ```
        /// use std::net::{TcpListener, TcpStream};
        /// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, Token};
        ///
        /// # fn main() -> std::io::Result<()> {
        /// let epoll = Epoll::new()?;
        /// let mut events = Events::with_capacity(8)?;
        /// let listener = TcpListener::bind("127.0.0.1:0")?;
        /// let address = listener.local_addr()?;
        /// let mut acceptor = LevelTriggered::on(listener).register(&epoll, Token(0))?;
        /// let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
        /// epoll.wait(&mut events, None)?;
        /// acceptor.drain(drop)?;
        ///
        /// let counters = acceptor.counters();
        /// assert_eq!((counters.passes, counters.delivered), (1, 3));
        /// assert!(counters.is_balanced());
        /// assert!(counters.per_pass.iter().any(|bucket| bucket == (2, 1)), "one pass took two or three");
        /// # Ok(())
        /// # }
        /// ```
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// The number of connections that each pass took. A pass that was left early is counted when the next one
            /// begins.
            pub per_pass: Histogram,
            /// The errno of the last accept that failed for a reason other than an empty queue or a signal.
            pub last_errno: Option<Errno>,
            times: TimeInStates,
        }

        /// The counters while they are written. Only the owner writes, so that no write needs a locked instruction.
        #[derive(Debug, Default)]
        pub(crate) struct AtomicCounters {
            $(pub(super) $name: Count,)*
            per_pass: AtomicHistogram,
            last_errno: AtomicI32,
            pub(super) times: StateTimes,
        }

        impl AtomicCounters {
            pub(super) fn read(&self, now: Duration) -> Counters {
                let last_errno = self.last_errno.load(Ordering::Relaxed);
                Counters {
                    $($name: self.$name.read(),)*
                    per_pass: self.per_pass.read(),
                    last_errno: (last_errno != 0).then(|| Errno::new(last_errno)),
                    times: self.times.read(now),
                }
            }
        }

        impl Counters {
            /// Returns each counter with its name, in the order of the fields: for exporters.
            ///
            /// ```
            /// let counters = epoll_acceptor::Counters::default();
            /// assert_eq!(counters.iter().next(), Some(("passes", 0)));
            /// ```
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Passes begun: calls of `ready` and `drain`.
    passes,
    /// Calls of `accept4`.
    attempts,
    /// Connections handed to the owner.
    delivered,
    /// Connections accepted and refused.
    refused,
    /// Refused because the gate was full.
    refused_full,
    /// Refused because their peer was at its limit.
    refused_peer,
    /// Refused because they exceeded a rate.
    refused_rate,
    /// Refused because they were queued for too long.
    refused_delay,
    /// Refused because their peer is not an allowed user.
    refused_credentials,
    /// Refused because their peer is not in an allowed network.
    refused_network,
    /// Refused with the reserve descriptor because the process was out of descriptors.
    refused_out_of_descriptors,
    /// Refused because of a graceful shutdown.
    refused_shutdown,
    /// Refused for any other reason of a filter.
    refused_filter,
    /// Connections that failed before they could be accepted (ECONNABORTED and the like).
    aborted,
    /// Attempts that a signal interrupted.
    interrupted,
    /// Attempts that found the queue empty.
    empty,
    /// Attempts that failed because descriptors or memory ran out.
    exhausted,
    /// Attempts exhausted by EMFILE: the process is out of descriptors.
    exhausted_process_descriptors,
    /// Attempts exhausted by ENFILE: the system is out of descriptors.
    exhausted_system_descriptors,
    /// Attempts exhausted by ENOMEM or ENOBUFS.
    exhausted_memory,
    /// Attempts exhausted by any other errno.
    exhausted_other,
    /// Attempts that showed that the listener is closed.
    fatal,
    /// Calls that armed the listener.
    rearms,
    /// Times that the acceptor blocked, with connections pending, because the gate was full.
    full,
    /// Times that it blocked, with connections pending, because they came, or were refused, too fast.
    throttles,
    /// Times that it noticed a pause.
    pauses,
    /// Times that it stopped listening and woke the other epolls ([`Exclusive`](struct@crate::Exclusive)).
    rewakes,
}

impl AtomicCounters {
    pub(super) fn failed(&self, errno: Errno) {
        let class = errno.class();
        match class {
            ErrnoClass::Consumed => &self.aborted,
            ErrnoClass::Empty => &self.empty,
            ErrnoClass::Interrupted => &self.interrupted,
            ErrnoClass::Resource => &self.exhausted,
            ErrnoClass::Fatal => &self.fatal,
        }
        .add();
        if !matches!(class, ErrnoClass::Empty | ErrnoClass::Interrupted) {
            self.set_last_errno(errno);
        }
        if class == ErrnoClass::Resource {
            match errno.number() {
                libc::EMFILE => &self.exhausted_process_descriptors,
                libc::ENFILE => &self.exhausted_system_descriptors,
                libc::ENOMEM | libc::ENOBUFS => &self.exhausted_memory,
                _ => &self.exhausted_other,
            }
            .add();
        }
    }

    pub(super) fn set_last_errno(&self, errno: Errno) {
        self.last_errno.store(errno.number(), Ordering::Relaxed);
    }

    pub(super) fn refused(&self, cause: Cause) {
        self.refused.add();
        match cause {
            Cause::Full => &self.refused_full,
            Cause::Peer => &self.refused_peer,
            Cause::Rate => &self.refused_rate,
            Cause::Delay => &self.refused_delay,
            Cause::Credentials => &self.refused_credentials,
            Cause::Network => &self.refused_network,
            Cause::OutOfDescriptors => &self.refused_out_of_descriptors,
            Cause::Shutdown => &self.refused_shutdown,
            Cause::Filter => &self.refused_filter,
        }
        .add();
    }

    #[inline]
    pub(super) fn passed(&self, taken: u32) {
        self.per_pass.add_owned(taken);
    }
}

impl Counters {
    /// Returns whether the sums in the description of [`Counters`] hold: they do while the owner waits.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sum = |prefix: &str| -> u64 {
            self.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
        };
        self.attempts
            == self.delivered
                + self.refused
                + self.aborted
                + self.interrupted
                + self.empty
                + self.exhausted
                + self.fatal
            && self.refused == sum("refused_")
            && self.exhausted == sum("exhausted_")
    }

    /// Returns how long the acceptor has been in a state, in total.
    #[must_use]
    pub fn time_in(&self, state: State) -> Duration {
        self.times.time_in(state)
    }
}

/// One line, `name value` for each counter that is not 0.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter().filter(|(name, value)| *value != 0 || *name == "delivered") {
            write!(f, "{name} {value}, ")?;
        }
        write!(f, "per pass [{}]", self.per_pass)
    }
}

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(super) fn add(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
