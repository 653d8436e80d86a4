//! The event bits of epoll_ctl(2), defined by number to stay independent of the system-call layer.

use std::fmt;

bitflags::bitflags! {
    /// A set of events and flags: the mask of a registration, the key of a wakeup, the result of a poll.
    ///
    /// Keeps unknown bits, as the kernel does.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    pub struct Mask: u32 {
        /// `EPOLLIN`
        const IN = 0x0001;
        /// `EPOLLPRI`
        const PRI = 0x0002;
        /// `EPOLLOUT`
        const OUT = 0x0004;
        /// `EPOLLERR`
        const ERR = 0x0008;
        /// `EPOLLHUP`
        const HUP = 0x0010;
        /// `EPOLLRDNORM`
        const RDNORM = 0x0040;
        /// `EPOLLRDBAND`
        const RDBAND = 0x0080;
        /// `EPOLLWRNORM`
        const WRNORM = 0x0100;
        /// `EPOLLWRBAND`
        const WRBAND = 0x0200;
        /// `EPOLLRDHUP`
        const RDHUP = 0x2000;
        /// `EPOLLEXCLUSIVE`
        const EXCLUSIVE = 1 << 28;
        /// `EPOLLWAKEUP`
        const WAKEUP = 1 << 29;
        /// `EPOLLONESHOT`
        const ONESHOT = 1 << 30;
        /// `EPOLLET`
        const ET = 1 << 31;
        /// Every other bit.
        const _ = !0;
    }
}

impl Mask {
    /// The flags without the events (`EP_PRIVATE_BITS`): all that a fired one-shot registration keeps.
    pub const PRIVATE: Self = Self::EXCLUSIVE.union(Self::WAKEUP).union(Self::ONESHOT).union(Self::ET);

    /// The events of a readable socket.
    pub(super) const READABLE: Self = Self::IN.union(Self::RDNORM);

    /// The events of a writable TCP socket.
    pub(super) const WRITABLE: Self = Self::OUT.union(Self::WRNORM);

    /// Returns `self` if the condition holds, else the empty mask.
    pub(super) fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::empty() }
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("0") } else { bitflags::parser::to_writer(self, f) }
    }
}
