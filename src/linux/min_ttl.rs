//! The minimum TTL of a TCP listener: what keeps new handshakes out (K79).

use std::os::fd::BorrowedFd;

use super::sys::options;
use crate::drain::errno::Errno;

/// `IP_MINTTL` and `IPV6_MINHOPCOUNT` of a socket: packets with a smaller TTL or hop limit are dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinTtl {
    ttl: i32,
    /// For IPv6 sockets. They accept IPv4 clients too, unless told otherwise.
    hop_count: Option<i32>,
}

impl MinTtl {
    const MAX: i32 = 255;

    /// Raises the minimum to 255, which only neighbours reach; returns what it was before. `None` if that is not
    /// possible for every family that the socket accepts: then nothing has changed.
    pub(super) fn raise(fd: BorrowedFd<'_>, ipv6: bool) -> Option<Self> {
        // 255 is not what the user asked for, but another acceptor's raise of the same socket.
        let read = |level, option| options::int(fd, level, option).ok().map(|hops| hops % Self::MAX);
        let ttl = read(libc::IPPROTO_IP, libc::IP_MINTTL)?;
        let hop_count = || read(libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT);
        let before = Self { ttl, hop_count: if ipv6 { Some(hop_count()?) } else { None } };
        let raised = Self { ttl: Self::MAX, hop_count: ipv6.then_some(Self::MAX) };
        if raised.set(fd).is_err() {
            let _ = before.set(fd);
            return None;
        }
        Some(before)
    }

    /// Sets the minimum of a socket.
    pub(super) fn set(self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        options::set_int(fd, libc::IPPROTO_IP, libc::IP_MINTTL, self.ttl)?;
        match self.hop_count {
            Some(hops) => options::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, hops),
            None => Ok(()),
        }
    }
}
