//! Who may connect at all.

use super::bell::Bell;
use super::newcomer::ConnectionInfo;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::{Cause, Refusal, Rejection};
use super::sync::Arc;

/// Lets in who is one of these users or a member of one of these groups, over Unix sockets. Clones are the same.
///
/// Nobody is let in who was not named: not root either, nor the user of this process.
///
/// ```
/// use epoll_acceptor::{Admission, AllowedUsers, Gate};
///
/// let policy = Gate::new(100).and(AllowedUsers::new().user(0).user(1000).group(27));
/// # let _ = policy;
/// ```
///
/// ## As of the connect
///
/// The kernel notes who called connect(2), with its effective user and group as they were then (unix(7),
/// `SO_PEERCRED`), and its supplementary groups (`SO_PEERGROUPS`). Whoever holds the descriptor now may be another: it
/// can be passed on and inherited, a program may have changed its user since, and a setuid program connects as its
/// owner. The pid may by now belong to another process; so there is no rule by pid.
///
/// ## User namespaces
///
/// A user that has no number in this process's namespace is given as the overflow user, 65534, as is every other of
/// the kind (user_namespaces(7)): don't allow `nobody` where there are containers.
///
/// ## Elsewhere
///
/// TCP has no credentials: everybody is refused, unless [`allow_unknown`](Self::allow_unknown) lets them in. A path's
/// permissions keep out who may not write to the socket, before this; a name in the abstract namespace has none.
#[derive(Clone, Debug)]
pub struct AllowedUsers {
    rules: Arc<Rules>,
}

#[derive(Clone, Debug)]
struct Rules {
    users: Vec<u32>,
    groups: Vec<u32>,
    allow_unknown: bool,
    refusal: Refusal,
}

impl AllowedUsers {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        let rules =
            Rules { users: Vec::new(), groups: Vec::new(), allow_unknown: false, refusal: Refusal::Close };
        Self { rules: Arc::new(rules) }
    }

    /// And whoever is this user, by its effective uid.
    #[must_use]
    pub fn user(self, uid: u32) -> Self {
        self.changed(|rules| rules.users.push(uid))
    }

    /// And whoever is in this group, by its effective gid or its supplementary groups. One system call more for each
    /// group, for those who are not let in without.
    #[must_use]
    pub fn group(self, gid: u32) -> Self {
        self.changed(|rules| rules.groups.push(gid))
    }

    /// And those of whom nobody knows who they are, such as TCP clients.
    #[must_use]
    pub fn allow_unknown(self) -> Self {
        self.changed(|rules| rules.allow_unknown = true)
    }

    /// How the others are told: the connection is closed unless said otherwise.
    #[must_use]
    pub fn refusal(self, refusal: Refusal) -> Self {
        self.changed(|rules| rules.refusal = refusal)
    }

    fn changed(self, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = Rules::clone(&self.rules);
        change(&mut rules);
        Self { rules: Arc::new(rules) }
    }

    fn allows(&self, newcomer: &dyn ConnectionInfo) -> bool {
        let Some(credentials) = newcomer.credentials() else { return self.rules.allow_unknown };
        self.rules.users.contains(&credentials.uid)
            || self.rules.groups.contains(&credentials.gid)
            || self.rules.groups.iter().any(|gid| newcomer.is_in_group(*gid) == Some(true))
    }
}

impl Admission for AllowedUsers {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        Reserve::Room(())
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, (): &mut ()) -> Result<(), Rejection> {
        if self.allows(newcomer) {
            return Ok(());
        }
        Err(Rejection::new(Cause::Credentials, self.rules.refusal.clone()))
    }

    fn cancel(&self, (): ()) {}

    /// Nobody stands in line to become somebody else.
    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        until.without_a_line()
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}
