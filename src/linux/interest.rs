//! The event bits of a registration and of an event.

use std::ffi::c_int;
use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use bitflags::bitflags;

use super::epoll_ctl_error::EpollCtlError;

bitflags! {
    /// The event bits of epoll(7): the interest of a registration, or the readiness of an event.
    ///
    /// Bits without a name here are retained: `Interest::from_bits_retain` sets them, and an event contains all bits
    /// that the kernel reported.
    ///
    /// `Debug` prints the kernel's names:
    ///
    /// ```
    /// use epoll_acceptor::Interest;
    ///
    /// assert_eq!(format!("{:?}", Interest::IN | Interest::ET), "EPOLLIN | EPOLLET");
    /// assert_eq!(format!("{:?}", Interest::from_bits_retain(0x80_0001)), "EPOLLIN | 0x800000");
    /// ```
    ///
    /// See [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html).
    ///
    /// ## Empty interest
    ///
    /// The kernel always reports [`ERR`](Self::ERR) and [`HUP`](Self::HUP), even with an empty interest.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct Interest: u32 {
        /// The descriptor is readable; for a listener: a connection is in the accept queue.
        #[doc(alias = "EPOLLIN")]
        const IN = bit(libc::EPOLLIN);
        /// An exceptional condition: out-of-band data, a change of a cgroup or sysfs file.
        #[doc(alias = "EPOLLPRI")]
        const PRI = bit(libc::EPOLLPRI);
        /// The descriptor is writable.
        #[doc(alias = "EPOLLOUT")]
        const OUT = bit(libc::EPOLLOUT);
        /// An error is pending. Always reported.
        #[doc(alias = "EPOLLERR")]
        const ERR = bit(libc::EPOLLERR);
        /// Hang-up: both directions are closed, or the listener was shut down. Always reported.
        #[doc(alias = "EPOLLHUP")]
        const HUP = bit(libc::EPOLLHUP);
        /// Normal data can be read; Linux sets it together with [`IN`](Self::IN).
        #[doc(alias = "EPOLLRDNORM")]
        const RDNORM = bit(libc::EPOLLRDNORM);
        /// Priority-band data can be read; only DECnet ever reported it.
        #[doc(alias = "EPOLLRDBAND")]
        const RDBAND = bit(libc::EPOLLRDBAND);
        /// Normal data can be written; Linux sets it together with [`OUT`](Self::OUT).
        #[doc(alias = "EPOLLWRNORM")]
        const WRNORM = bit(libc::EPOLLWRNORM);
        /// Priority-band data can be written.
        #[doc(alias = "EPOLLWRBAND")]
        const WRBAND = bit(libc::EPOLLWRBAND);
        /// Ignored by the kernel.
        #[doc(alias = "EPOLLMSG")]
        const MSG = bit(libc::EPOLLMSG);
        /// The peer has shut down writing. Reported only if requested.
        #[doc(alias = "EPOLLRDHUP")]
        const RDHUP = bit(libc::EPOLLRDHUP);
        /// The kernel wakes one or more, not all, of the epolls that registered the descriptor.
        ///
        /// Only [`Epoll::add_exclusive`](super::epoll::Epoll::add_exclusive) sets this bit. The name exists for
        /// `Debug`; `add` and `modify` reject the bit.
        #[doc(alias = "EPOLLEXCLUSIVE")]
        const EXCLUSIVE = bit(libc::EPOLLEXCLUSIVE);
        /// The system does not suspend while the event is pending or being processed. Ignored without
        /// `CAP_BLOCK_SUSPEND`.
        #[doc(alias = "EPOLLWAKEUP")]
        const WAKEUP = bit(libc::EPOLLWAKEUP);
        /// One-shot: after one event the kernel disables the registration, ERR and HUP included, until `modify`.
        #[doc(alias = "EPOLLONESHOT")]
        const ONESHOT = bit(libc::EPOLLONESHOT);
        /// Edge-triggered: reported when the descriptor becomes ready, not while it is ready.
        #[doc(alias = "EPOLLET")]
        const ET = bit(libc::EPOLLET);

        // Bits that a later kernel adds.
        const _ = !0;
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut names = self.iter_names();
        for (name, _) in names.by_ref() {
            write!(f, "{separator}EPOLL{name}")?;
            separator = " | ";
        }
        match names.remaining().bits() {
            0 if separator.is_empty() => f.write_str("0"),
            0 => Ok(()),
            unnamed => write!(f, "{separator}{unnamed:#x}"),
        }
    }
}

/// The interest of an exclusive registration: only the flags that the kernel allows with `EPOLLEXCLUSIVE`.
///
/// See [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), `EPOLLEXCLUSIVE`.
///
/// ```
/// use epoll_acceptor::Interest;
/// use epoll_acceptor::epoll::ExclusiveInterest;
///
/// let interest = ExclusiveInterest::IN | ExclusiveInterest::ET;
/// assert_eq!(ExclusiveInterest::try_from(Interest::IN | Interest::ET), Ok(interest));
/// assert!(ExclusiveInterest::try_from(Interest::IN | Interest::ONESHOT).is_err());
/// ```
#[doc(alias = "EPOLLEXCLUSIVE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExclusiveInterest {
    /// Invariant: no bit outside [`ALLOWED`].
    flags: Interest,
}

impl ExclusiveInterest {
    /// [`Interest::IN`].
    pub const IN: Self = Self { flags: Interest::IN };
    /// [`Interest::OUT`].
    pub const OUT: Self = Self { flags: Interest::OUT };
    /// [`Interest::ERR`]; always reported.
    pub const ERR: Self = Self { flags: Interest::ERR };
    /// [`Interest::HUP`]; always reported.
    pub const HUP: Self = Self { flags: Interest::HUP };
    /// [`Interest::ET`].
    pub const ET: Self = Self { flags: Interest::ET };
    /// [`Interest::WAKEUP`].
    pub const WAKEUP: Self = Self { flags: Interest::WAKEUP };

    /// Returns the flags without `EPOLLEXCLUSIVE`.
    #[must_use]
    pub const fn interest(self) -> Interest {
        self.flags
    }
}

impl BitOr for ExclusiveInterest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { flags: self.flags.union(other.flags) }
    }
}

impl BitOrAssign for ExclusiveInterest {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl TryFrom<Interest> for ExclusiveInterest {
    type Error = EpollCtlError;

    /// Accepts the flags with or without [`Interest::EXCLUSIVE`].
    fn try_from(interest: Interest) -> Result<Self, EpollCtlError> {
        let flags = interest.difference(Interest::EXCLUSIVE);
        let illegal = flags.difference(ALLOWED);
        if illegal.is_empty() { Ok(Self { flags }) } else { Err(EpollCtlError::not_exclusive(illegal)) }
    }
}

impl fmt::Debug for ExclusiveInterest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.flags.union(Interest::EXCLUSIVE), f)
    }
}

const ALLOWED: Interest = Interest::IN
    .union(Interest::OUT)
    .union(Interest::ERR)
    .union(Interest::HUP)
    .union(Interest::ET)
    .union(Interest::WAKEUP);

/// Reinterprets the bits; `EPOLLET` is the sign bit of a C int.
const fn bit(flag: c_int) -> u32 {
    u32::from_ne_bytes(flag.to_ne_bytes())
}
