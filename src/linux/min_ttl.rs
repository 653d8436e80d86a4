//! The minimum TTL of a TCP listener: what keeps new handshakes out (K79).

use std::os::fd::BorrowedFd;

use super::sys::options;
use crate::drain::errno::Errno;

/// `IP_MINTTL` and `IPV6_MINHOPCOUNT` of a socket: packets with a smaller TTL or hop limit are dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinTtl {
    ttl: i32,
    /// For IPv6 sockets. They accept IPv4 clients too, unless `IPV6_V6ONLY` is set.
    hop_count: Option<i32>,
}

impl MinTtl {
    const MAX: i32 = 255;

    /// Returns the minimum of a socket; `None` if it has none.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let ttl = options::int(fd, libc::IPPROTO_IP, libc::IP_MINTTL).ok()?;
        Some(Self { ttl, hop_count: options::int(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT).ok() })
    }

    /// Raises the minimum to 255, which only neighbours reach; returns what it was before. `None` if that is not
    /// possible for every family that the socket accepts: then nothing has changed.
    ///
    /// `registered` is the minimum when the acceptor was registered. If the minimum has become 255 since, another
    /// acceptor has raised it on the same socket. If it was 255 already, the user set it, and nothing higher exists.
    pub(super) fn raise(fd: BorrowedFd<'_>, registered: Self) -> Option<Self> {
        let now = Self::of(fd)?;
        let own = |now, registered| if now == Self::MAX { registered } else { now };
        let hop_count = now.hop_count.map(|hops| own(hops, registered.hop_count.unwrap_or(0)));
        let before = Self { ttl: own(now.ttl, registered.ttl), hop_count };
        if before.ttl == Self::MAX || before.hop_count == Some(Self::MAX) {
            return None;
        }
        let raised = Self { ttl: Self::MAX, hop_count: now.hop_count.map(|_| Self::MAX) };
        if raised.set(fd).is_err() {
            let _ = before.set(fd);
            return None;
        }
        Some(before)
    }

    pub(super) fn set(self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        options::set_int(fd, libc::IPPROTO_IP, libc::IP_MINTTL, self.ttl)?;
        match self.hop_count {
            Some(hops) => options::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, hops),
            None => Ok(()),
        }
    }
}
