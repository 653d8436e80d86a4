//! What the kernel tells of a connection's peer, for the policies that ask.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::peer::PeerAddr;
use super::sys;
use crate::admission::newcomer::Credentials;

/// `getpeername`, with the two names of one peer made one.
pub(super) fn address(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    let name = sys::peer_name(fd).ok()?;
    PeerAddr::from_bytes(name.as_bytes()).canonical().socket_addr()
}

/// `SO_PEERCRED`, where it tells of somebody: on other sockets than Unix ones the user is -1.
pub(super) fn credentials(fd: BorrowedFd<'_>) -> Option<Credentials> {
    let told = sys::peer_credentials(fd).ok()?;
    let pid = u32::try_from(told.pid()).unwrap_or(0);
    (told.uid() != u32::MAX).then(|| Credentials { uid: told.uid(), gid: told.gid(), pid })
}

/// Whether a group is among the peer's: its own, or a supplementary one (`SO_PEERGROUPS`).
pub(super) fn is_in_group(fd: BorrowedFd<'_>, gid: u32) -> Option<bool> {
    /// What fits the stack; Linux allows 65,536.
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
        // An older kernel: its own group is all that is known.
        Err(_) => None,
    }
}
