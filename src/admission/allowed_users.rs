//! The users and groups that may connect.

use super::connection_info::ConnectionInfo;
use super::filter::{Filter, Reservation};
use super::refusal::{Cause, Refusal, Rejection};

/// Admits connections over Unix sockets from these users and from members of these groups.
///
/// A user that is not listed is refused, including root and the user of this process.
///
/// ```
/// use epoll_acceptor::AllowedUsers;
/// use epoll_acceptor::Filter;
/// use epoll_acceptor::filter::{Credentials, TestConnection};
///
/// let allowed = AllowedUsers::new().user(0).user(1000).group(27);
/// let of = |uid| TestConnection { credentials: Some(Credentials { uid, gid: uid, pid: 1 }), ..TestConnection::default() };
/// assert!(allowed.admit(&of(1000).info(), &mut ()).is_ok());
/// assert!(allowed.admit(&of(1001).info(), &mut ()).is_err());
/// ```
///
/// ## Credentials at connect(2)
///
/// The kernel notes the effective user and group, and the supplementary groups, of the process that called connect(2)
/// (unix(7), `SO_PEERCRED`, `SO_PEERGROUPS`). The descriptor may have been passed on since, and a setuid program
/// connects as its owner. The pid may belong to another process by now, so there is no rule by pid.
///
/// ## User namespaces
///
/// A user without a number in this process's namespace appears as the overflow user, 65534 (user_namespaces(7)): do not
/// allow the user `nobody` where there are containers.
///
/// ## TCP
///
/// TCP has no credentials: its connections are refused, unless [`allow_unknown`](Self::allow_unknown) admits them.
#[derive(Clone, Debug)]
pub struct AllowedUsers {
    users: Vec<u32>,
    groups: Vec<u32>,
    allow_unknown: bool,
    refusal: Refusal,
}

impl AllowedUsers {
    /// Creates a filter that refuses every user.
    #[must_use]
    pub const fn new() -> Self {
        Self { users: Vec::new(), groups: Vec::new(), allow_unknown: false, refusal: Refusal::Close }
    }

    /// Admits a user, by the effective uid.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.users.push(uid);
        self
    }

    /// Admits the members of a group, by the effective gid or the supplementary groups. Costs one system call for each
    /// group, for connections that are not admitted by their user.
    #[must_use]
    pub fn group(mut self, gid: u32) -> Self {
        self.groups.push(gid);
        self
    }

    /// Admits connections without credentials, such as those of TCP.
    #[must_use]
    pub const fn allow_unknown(mut self) -> Self {
        self.allow_unknown = true;
        self
    }

    /// Sets how other connections are refused; the default is a close.
    #[must_use]
    pub fn refusal(mut self, refusal: Refusal) -> Self {
        self.refusal = refusal;
        self
    }

    fn allows(&self, connection: &ConnectionInfo<'_>) -> bool {
        let Some(credentials) = connection.credentials() else { return self.allow_unknown };
        self.users.contains(&credentials.uid)
            || self.groups.contains(&credentials.gid)
            || self.groups.iter().any(|gid| connection.is_in_group(*gid) == Some(true))
    }
}

impl Default for AllowedUsers {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter for AllowedUsers {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        match self.allows(connection) {
            true => Ok(()),
            false => Err(Rejection::new(Cause::Credentials, self.refusal.clone())),
        }
    }
}
