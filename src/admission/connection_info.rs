//! The facts about an accepted connection that a filter can ask for.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// An accepted connection, as a [`Filter`](crate::Filter) sees it.
///
/// Nothing is read from the kernel before it is asked for. An answer is `None` where the kernel cannot give it.
/// [`TestConnection`] makes one for the tests of a filter.
#[derive(Clone, Copy)]
pub struct ConnectionInfo<'a> {
    source: &'a dyn ConnectionSource,
}

pub(crate) trait ConnectionSource {
    fn peer(&self) -> Option<SocketAddr>;
    fn queue_time(&self) -> Option<Duration>;
    fn credentials(&self) -> Option<Credentials>;
    fn is_in_group(&self, gid: u32) -> Option<bool>;
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

impl<'a> ConnectionInfo<'a> {
    #[inline]
    pub(crate) const fn new(source: &'a dyn ConnectionSource) -> Self {
        Self { source }
    }

    /// Returns the peer's address, for TCP and MPTCP. An IPv4 peer of a dual-stack listener (`::ffff:a.b.c.d`) is
    /// given as IPv4, so that one peer has one address.
    ///
    /// For a connection that was reset while it was queued, the kernel gives the address only with the accept itself:
    /// see [`Filter::needs_peer_addr`](crate::Filter::needs_peer_addr).
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.source.peer()
    }

    /// Returns how long the connection was in the accept queue, for TCP and for MPTCP over IPv4. The resolution is the
    /// kernel's tick, 1 to 10 ms (`CONFIG_HZ`, K67).
    #[must_use]
    pub fn queue_time(&self) -> Option<Duration> {
        self.source.queue_time()
    }

    /// Returns the credentials of the process that called connect(2), for Unix sockets (`SO_PEERCRED`).
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.source.credentials()
    }

    /// Returns whether the peer is in a group, by its effective or its supplementary groups, for Unix sockets
    /// (`SO_PEERGROUPS`).
    #[must_use]
    pub fn is_in_group(&self, gid: u32) -> Option<bool> {
        self.source.is_in_group(gid)
    }

    /// Returns the connection's descriptor, for what the other methods do not answer. `None` in tests.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.fd()
    }
}

/// The identity of a Unix socket's peer when it connected.
///
/// See [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html), `SO_PEERCRED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process; 0 if it is in a pid namespace that is not visible here. It may have ended, and its number
    /// may belong to another process.
    pub pid: u32,
}

/// A connection to test a filter with: see [`filter_fn`](crate::filter_fn).
#[derive(Clone, Debug, Default)]
pub struct TestConnection {
    /// [`ConnectionInfo::peer`]
    pub peer: Option<SocketAddr>,
    /// [`ConnectionInfo::queue_time`]
    pub queue_time: Option<Duration>,
    /// [`ConnectionInfo::credentials`]
    pub credentials: Option<Credentials>,
    /// The peer's supplementary groups.
    pub groups: Vec<u32>,
}

impl TestConnection {
    /// Returns the connection as a filter sees it.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo<'_> {
        ConnectionInfo::new(self)
    }
}

impl ConnectionSource for TestConnection {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn queue_time(&self) -> Option<Duration> {
        self.queue_time
    }

    fn credentials(&self) -> Option<Credentials> {
        self.credentials
    }

    fn is_in_group(&self, gid: u32) -> Option<bool> {
        let credentials = self.credentials?;
        Some(credentials.gid == gid || self.groups.contains(&gid))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl fmt::Debug for ConnectionInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo").field("fd", &self.fd()).finish_non_exhaustive()
    }
}
