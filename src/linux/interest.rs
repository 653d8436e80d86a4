//! What a registration asks for, and what an event says.

use std::ffi::c_int;
use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use bitflags::bitflags;

use super::control::EpollCtlError;

bitflags! {
    /// The event bits of epoll(7): what a registration asks for, or what is ready.
    ///
    /// Bits that have no name here are kept, not dropped: `Interest::from_bits_retain` makes them, and an
    /// event carries whatever the kernel has put in it.
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
    /// ## An empty interest is not silent
    ///
    /// [`ERR`](Self::ERR) and [`HUP`](Self::HUP) are always reported, asked for or not.
    ///
    /// # References
    ///
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html)
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct Interest: u32 {
        /// Something can be read; of a listener: a connection waits.
        #[doc(alias = "EPOLLIN")]
        const IN = bit(libc::EPOLLIN);
        /// Something exceptional: out-of-band data, a changed file of cgroup or sysfs.
        #[doc(alias = "EPOLLPRI")]
        const PRI = bit(libc::EPOLLPRI);
        /// Something can be written.
        #[doc(alias = "EPOLLOUT")]
        const OUT = bit(libc::EPOLLOUT);
        /// An error is pending. Reported always.
        #[doc(alias = "EPOLLERR")]
        const ERR = bit(libc::EPOLLERR);
        /// Hang-up: both directions are closed, or a listener was shut down. Reported always.
        #[doc(alias = "EPOLLHUP")]
        const HUP = bit(libc::EPOLLHUP);
        /// Normal data can be read; Linux sets it together with [`IN`](Self::IN).
        #[doc(alias = "EPOLLRDNORM")]
        const RDNORM = bit(libc::EPOLLRDNORM);
        /// Priority-band data can be read (DECnet alone has ever used it).
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
        /// The peer has closed its direction. Not reported unless asked for.
        #[doc(alias = "EPOLLRDHUP")]
        const RDHUP = bit(libc::EPOLLRDHUP);
        /// Of several epolls that watch one descriptor, not all are woken.
        ///
        /// Here so that it can be printed: registering takes
        /// [`Epoll::add_exclusive`](super::epoll::Epoll::add_exclusive), and everything else refuses it.
        #[doc(alias = "EPOLLEXCLUSIVE")]
        const EXCLUSIVE = bit(libc::EPOLLEXCLUSIVE);
        /// The system stays awake while the event is pending or handled; needs `CAP_BLOCK_SUSPEND`, and is
        /// ignored without.
        #[doc(alias = "EPOLLWAKEUP")]
        const WAKEUP = bit(libc::EPOLLWAKEUP);
        /// After one event the registration sleeps until it is modified, ERR and HUP included.
        #[doc(alias = "EPOLLONESHOT")]
        const ONESHOT = bit(libc::EPOLLONESHOT);
        /// Edge-triggered: reported when it becomes ready, not while it is.
        #[doc(alias = "EPOLLET")]
        const ET = bit(libc::EPOLLET);

        // Whatever a later kernel adds.
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

/// What may be asked for in an exclusive registration: nothing else can be written down.
///
/// The kernel refuses every other flag beside `EPOLLEXCLUSIVE`, and the type has no way to name one.
///
/// ```
/// use epoll_acceptor::{ExclusiveInterest, Interest};
///
/// let interest = ExclusiveInterest::IN | ExclusiveInterest::ET;
/// assert_eq!(ExclusiveInterest::try_from(Interest::IN | Interest::ET), Ok(interest));
/// assert!(ExclusiveInterest::try_from(Interest::IN | Interest::ONESHOT).is_err());
/// ```
///
/// # References
///
/// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), `EPOLLEXCLUSIVE`
#[doc(alias = "EPOLLEXCLUSIVE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExclusiveInterest {
    /// Invariant: no bit outside [`ALLOWED`].
    flags: Interest,
}

impl ExclusiveInterest {
    /// Something can be read; of a listener: a connection waits.
    pub const IN: Self = Self { flags: Interest::IN };
    /// Something can be written.
    pub const OUT: Self = Self { flags: Interest::OUT };
    /// An error is pending; reported always.
    pub const ERR: Self = Self { flags: Interest::ERR };
    /// Hang-up; reported always.
    pub const HUP: Self = Self { flags: Interest::HUP };
    /// Edge-triggered.
    pub const ET: Self = Self { flags: Interest::ET };
    /// The system stays awake while the event is pending or handled.
    pub const WAKEUP: Self = Self { flags: Interest::WAKEUP };

    /// The same flags, without `EPOLLEXCLUSIVE`.
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

    /// [`Interest::EXCLUSIVE`] itself may be there or not.
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

/// What the kernel allows beside `EPOLLEXCLUSIVE`.
const ALLOWED: Interest = Interest::IN
    .union(Interest::OUT)
    .union(Interest::ERR)
    .union(Interest::HUP)
    .union(Interest::ET)
    .union(Interest::WAKEUP);

/// The same bits; `EPOLLET` is the sign bit of a C int.
const fn bit(flag: c_int) -> u32 {
    u32::from_ne_bytes(flag.to_ne_bytes())
}
