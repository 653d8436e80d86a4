//! How far packets have to have come: the bar of a TCP listener, and what takes it from its connections.

use std::os::fd::BorrowedFd;

use super::sys::options;
use crate::drain::errno::Errno;

/// How far a packet has to have come at the least: what arrives with a smaller TTL or hop limit is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hops {
    ttl: i32,
    /// For sockets of IPv6. They take clients of IPv4 too, unless told otherwise.
    hop_count: Option<i32>,
}

impl Hops {
    const MAX: i32 = 255;

    /// Keeps everybody out who is not next door; what was asked for before. `None` if that cannot be had for every family
    /// that the socket takes: then nothing has changed.
    pub(super) fn bar(fd: BorrowedFd<'_>, ipv6: bool) -> Option<Self> {
        // Another acceptor's bar on the same socket is not what its user asked for.
        let asked = |level, option| options::int(fd, level, option).ok().map(|hops| hops % Self::MAX);
        let ttl = asked(libc::IPPROTO_IP, libc::IP_MINTTL)?;
        let hop_count = || asked(libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT);
        let before = Self { ttl, hop_count: if ipv6 { Some(hop_count()?) } else { None } };
        let bar = Self { ttl: Self::MAX, hop_count: ipv6.then_some(Self::MAX) };
        if bar.set(fd).is_err() {
            let _ = before.set(fd);
            return None;
        }
        Some(before)
    }

    /// Asks for this.
    pub(super) fn set(self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        options::set_int(fd, libc::IPPROTO_IP, libc::IP_MINTTL, self.ttl)?;
        match self.hop_count {
            Some(hops) => options::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, hops),
            None => Ok(()),
        }
    }
}
