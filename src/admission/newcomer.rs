//! What can be asked of a connection that has been accepted and not been let in yet.

use std::net::SocketAddr;
use std::time::Duration;

/// A connection at the door: accepted, and not let in yet.
///
/// Nothing is looked up before it is asked for. Each answer is `None` where the kernel cannot give it. A policy's own
/// tests may implement it for whatever they like.
///
/// ```
/// use epoll_acceptor::ConnectionInfo;
/// use std::net::SocketAddr;
///
/// struct From(SocketAddr);
///
/// impl ConnectionInfo for From {
///     fn peer(&self) -> Option<SocketAddr> {
///         Some(self.0)
///     }
/// }
///
/// assert_eq!(From(([127, 0, 0, 1], 80).into()).queued(), None);
/// ```
pub trait ConnectionInfo {
    /// Its address, for TCP and MPTCP. A v4 peer of a dual-stack listener (`::ffff:a.b.c.d`) is given as v4: else one
    /// peer would have two names.
    ///
    /// ## Say so beforehand
    ///
    /// Of a connection that was reset while it was queued the kernel tells the address only together with the accept:
    /// see [`Admission::wants_peer`](super::Admission::wants_peer). Otherwise this is `None` for such a one.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }

    /// How long it was queued, for TCP and for MPTCP over v4. In ticks of the kernel's clock, 1 to 10 ms (`CONFIG_HZ`).
    fn queued(&self) -> Option<Duration> {
        None
    }

    /// Who connected, for Unix sockets: the process that called connect(2), as it was then (`SO_PEERCRED`).
    fn credentials(&self) -> Option<Credentials> {
        None
    }

    /// Whether this group is the peer's own or one of its supplementary groups, for Unix sockets (`SO_PEERGROUPS`).
    fn is_in_group(&self, gid: u32) -> Option<bool> {
        self.credentials().map(|credentials| credentials.gid == gid)
    }
}

/// The peer of a Unix socket when it connected.
///
/// # References
///
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html), `SO_PEERCRED`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process; 0 if it is in a pid namespace that cannot be seen from here. It may be gone, and its number
    /// another's.
    pub pid: u32,
}
