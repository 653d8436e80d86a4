//! What an acceptor did, as plain numbers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::errno::ErrnoClass;
use crate::admission::refusal::Cause;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What an acceptor did since it was registered.
        ///
        /// Every attempt to accept is one of seven: `attempts = delivered + refused + aborted + interrupted +
        /// empty + exhausted + dead`. Exact when the owner is at rest; read while it is at work, from another
        /// thread, the parts may be one step apart. The refused are told apart by [`Cause`]: the eight counters
        /// `refused_…` add up to `refused`.
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
            /// How many connections each pass took.
            pub per_pass: Histogram,
        }

        /// The same, while it is counted. Only the owner writes, so that no write needs a locked instruction.
        #[derive(Debug)]
        pub(super) struct Tally {
            $(pub(super) $name: Count,)*
            pub(super) per_pass: [Count; Histogram::BUCKETS],
        }

        impl Default for Tally {
            fn default() -> Self {
                Self { $($name: Count::default(),)* per_pass: std::array::from_fn(|_| Count::default()) }
            }
        }

        impl Tally {
            pub(super) fn read(&self) -> Counters {
                Counters {
                    $($name: self.$name.read(),)*
                    per_pass: Histogram(std::array::from_fn(|bucket| self.per_pass[bucket].read())),
                }
            }
        }

        impl Counters {
            /// Each of the plain numbers with its name, in the order of the fields: for exporters. The histogram is not
            /// among them.
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
    /// Connections taken and refused.
    refused,
    /// Of these, because the connection limit was reached.
    refused_full,
    /// Because their peer had as many as one may have.
    refused_peer,
    /// Because they came faster than they may.
    refused_rate,
    /// Because they had been queued for too long.
    refused_delay,
    /// Because their peer is nobody who may connect.
    refused_credentials,
    /// Because descriptors had run out, and they were taken with the one in reserve.
    refused_out_of_descriptors,
    /// Because their listener was being wound down.
    refused_closing,
    /// For any other reason of a policy.
    refused_policy,
    /// Connections that were gone before they could be handed over (ECONNABORTED and its kin).
    aborted,
    /// Attempts that a signal interrupted.
    interrupted,
    /// Attempts that found the queue empty.
    empty,
    /// Attempts that failed for want of descriptors or memory.
    exhausted,
    /// Attempts that told that the listener is gone.
    dead,
    /// How often the kernel was told to report the listener (again).
    rearms,
    /// How often the acceptor fell asleep with connections waiting, because it was full.
    full,
    /// How often it fell asleep with connections waiting, because they came, or were refused, too fast.
    throttles,
    /// How often it noticed that it was paused.
    pauses,
    /// How often it left the listener to others and had the kernel tell them ([`Exclusive`](super::Exclusive)).
    rewakes,
}

impl Tally {
    pub(super) fn failed(&self, class: ErrnoClass) {
        match class {
            ErrnoClass::Consumed => &self.aborted,
            ErrnoClass::Empty => &self.empty,
            ErrnoClass::Interrupted => &self.interrupted,
            ErrnoClass::Resource => &self.exhausted,
            ErrnoClass::Fatal => &self.dead,
        }
        .add();
    }

    pub(super) fn refused(&self, cause: Cause) {
        self.refused.add();
        match cause {
            Cause::Full => &self.refused_full,
            Cause::Peer => &self.refused_peer,
            Cause::Rate => &self.refused_rate,
            Cause::Delay => &self.refused_delay,
            Cause::Credentials => &self.refused_credentials,
            Cause::OutOfDescriptors => &self.refused_out_of_descriptors,
            Cause::Closing => &self.refused_closing,
            Cause::Policy => &self.refused_policy,
        }
        .add();
    }

    #[inline]
    pub(super) fn passed(&self, taken: u32) {
        self.per_pass[Histogram::bucket(taken)].add();
    }
}

impl Counters {
    /// Whether every attempt is accounted for, and every refusal. Always, of an acceptor at rest; while its owner is at
    /// work the parts may be a step apart.
    #[must_use]
    pub const fn is_balanced(&self) -> bool {
        let refused = self.refused_full
            + self.refused_peer
            + self.refused_rate
            + self.refused_delay
            + self.refused_credentials
            + self.refused_out_of_descriptors
            + self.refused_closing
            + self.refused_policy;
        let attempts = self.attempts
            == self.delivered
                + self.refused
                + self.aborted
                + self.interrupted
                + self.empty
                + self.exhausted
                + self.dead;
        attempts && self.refused == refused
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

/// How many passes took 0, 1, 2 to 3, 4 to 7, … connections. A pass that was left early is counted when the next one
/// begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram([u64; Self::BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; Self::BUCKETS])
    }
}

impl Histogram {
    /// One for 0, and one for each power of two that a `u32` has.
    const BUCKETS: usize = 33;

    #[inline]
    const fn bucket(taken: u32) -> usize {
        (u32::BITS - taken.leading_zeros()) as usize
    }

    /// The buckets: the smallest number that falls into each, and how many passes did.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.0
            .iter()
            .enumerate()
            .map(|(bucket, count)| (if bucket == 0 { 0 } else { 1 << (bucket - 1) }, *count))
    }
}

/// `1: 40, 2+: 7, 4+: 1`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (from, count) in self.iter().filter(|(_, count)| *count != 0) {
            write!(f, "{comma}{from}{}: {count}", if from > 1 { "+" } else { "" })?;
            comma = ", ";
        }
        Ok(())
    }
}

/// A number that one thread writes and any reads.
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
