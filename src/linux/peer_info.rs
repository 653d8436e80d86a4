//! What the kernel reports about a connection's peer, for filters that ask.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::peer::PeerAddr;
use super::sys;
use crate::admission::connection_info::Credentials;

/// `getpeername`, with an IPv4-mapped address as IPv4.
pub(super) fn address(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    let name = sys::peer_name(fd).ok()?;
    PeerAddr::from_bytes(name.as_bytes()).canonical().socket_addr()
}

/// `SO_PEERCRED`; sockets that are not Unix sockets report the user -1.
pub(super) fn credentials(fd: BorrowedFd<'_>) -> Option<Credentials> {
    let credentials = sys::peer_credentials(fd).ok()?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let pid = u32::try_from(credentials.pid()).unwrap_or(0);
    (uid != u32::MAX).then_some(Credentials { uid, gid, pid })
}

/// Returns whether a group is the peer's effective one, or a supplementary one (`SO_PEERGROUPS`).
pub(super) fn is_in_group(fd: BorrowedFd<'_>, gid: u32) -> Option<bool> {
    /// Fits on the stack; Linux allows 65,536.
    const FEW: usize = 64;

    if credentials(fd)?.gid == gid {
        return Some(true);
    }
    let mut few = [0; FEW];
    match sys::peer_groups(fd, &mut few) {
        Ok(count) => Some(few[..count.min(FEW)].contains(&gid)),
        Err(errno) if errno.number() == libc::ERANGE => {
            let mut many = vec![0; 65_536];
            let count = sys::peer_groups(fd, &mut many).ok()?;
            Some(many[..count.min(many.len())].contains(&gid))
        }
        // A kernel before 4.13 reports the effective group alone.
        Err(_) => None,
    }
}
