//! A `SO_REUSEPORT` group: several listeners on one address, among which the kernel balances connections (feature
//! `group`).
//!
//! Each worker has its own listener and accept queue: no thundering herd and no shared lock. But the kernel assigns a
//! connection to one member, and no other member can accept it, even if that member is busy, disarmed or closed.
//! [The guide](crate::guide::multi_core) compares the group with its alternatives.
//!
//! # Traps
//!
//! ## Unserved member
//!
//! The kernel keeps assigning connections to a member without an acceptor, and their clients wait forever. The other
//! members show no sign of it. [`Group::unserved`] returns such members.
//!
//! ## A second server on the same address
//!
//! A second server that is started by mistake does not fail with `EADDRINUSE`: it gets its share of the connections.
//! The kernel requires only the same effective uid and `SO_REUSEPORT` on every socket.
//!
//! ## Several processes
//!
//! A group knows only the members that it opened, but it steers by their position among *all* sockets on the address:
//! [a group and another process](crate::guide::multi_core#several-processes).

mod builder;
mod health;
mod migration;
mod steering;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use self::health::{Look, health};
use self::migration::queues_migrate;
use super::acceptor::EpollAcceptor;
use super::listener::Listener;
use super::queue::{AcceptQueue, accept_queue, has_pending};
use super::sys;
use crate::admission::filter::Filter;
use crate::drain::acceptor::Acceptor;
use crate::drain::control::Control;
use crate::drain::shutdown::Pending;

pub use self::builder::GroupBuilder;
pub use self::health::MemberHealth;
pub use self::steering::Steering;

/// A `SO_REUSEPORT` group of listeners.
///
/// ```
/// use std::net::{SocketAddr, TcpStream};
/// use epoll_acceptor::group::Group;
/// use epoll_acceptor::{Acceptor, Epoll, LevelTriggered, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let mut group = Group::builder(SocketAddr::from(([127, 0, 0, 1], 0))).bind(2)?;
/// let mut workers = Vec::new();
/// while let Some(member) = group.take() {
///     let epoll = Epoll::new()?; // one thread and one epoll per member
///     let acceptor = LevelTriggered::on(member).register(&epoll, Token(0))?;
///     workers.push((epoll, acceptor));
/// }
/// assert_eq!(group.unserved(), [], "each member has an acceptor");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the group closes the members that were not taken"]
pub struct Group {
    shared: Arc<Shared>,
    /// Members that `take` has not returned yet.
    untaken: VecDeque<Member>,
    address: SocketAddr,
    backlog: u32,
}

/// One listener of a group, for an acceptor.
///
/// Dropping a member closes its listener and resets the connections in its queue;
/// [`leave_group`](EpollAcceptor::leave_group) resets none.
#[must_use = "dropping a member closes its listener and resets the connections in its queue"]
pub struct Member {
    index: usize,
    /// Invariant: `Some` until `close` or `into_listener`.
    listener: Option<Arc<TcpListener>>,
    shared: Arc<Shared>,
}

/// A snapshot of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberReport {
    /// The [index](Member::index) of the member.
    pub index: usize,
    /// The accept queue; `None` if the member is closed, or the kernel does not report the queue.
    pub queue: Option<AcceptQueue>,
    /// Whether an acceptor serves the member.
    pub health: MemberHealth,
}

/// The result of [`EpollAcceptor::leave_group`].
#[derive(Debug)]
#[must_use = "a member that is shutting down leaves the group when it is finished"]
#[allow(clippy::large_enum_variant, reason = "created once per member, and matched at once")]
pub enum LeaveOutcome<F: Filter = ()> {
    /// The member is closed, and the kernel has migrated this number of connections to the other members.
    Migrated(u32),
    /// The kernel assigns no new connections to the member. The caller serves or refuses its queue.
    ShuttingDown(EpollAcceptor<Member, F>),
}

/// The state that a group shares with its members.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    /// The member indices in the order of the kernel's array, where the last socket replaces a closed one.
    order: Vec<usize>,
    steering: Steering,
    program_attached: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Weak, so that a report does not keep a member open.
    listener: Weak<TcpListener>,
    control: Option<Control>,
    last: Option<Look>,
    /// The kernel must assign no new connections to the member.
    leaving: bool,
}

impl Group {
    /// Returns a builder for a group on `address`. With port 0 the kernel picks a free port for all members.
    pub const fn builder(address: SocketAddr) -> GroupBuilder {
        GroupBuilder::new(address)
    }

    /// Returns the address on which all members listen.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the next member, for an acceptor; `None` if all were taken.
    ///
    /// The kernel assigns connections to a member from [`bind`](GroupBuilder::bind) or [`add`](Self::add) on, taken or
    /// not.
    #[must_use = "dropping a member closes its listener and resets the connections in its queue"]
    pub fn take(&mut self) -> Option<Member> {
        self.untaken.pop_front()
    }

    /// Returns a snapshot of each member, by index. Two system calls per member; no privileges.
    ///
    /// A member is [`Stalled`](MemberHealth::Stalled) if connections were queued at the previous call and at this one,
    /// and its owner has begun no pass in between. The interval between two calls is therefore the time that an owner
    /// has to handle an event: one second is a good interval.
    #[must_use]
    pub fn report(&self) -> Vec<MemberReport> {
        let mut state = self.shared.lock();
        (0..).zip(&mut state.slots).map(|(index, slot)| slot.report(index)).collect()
    }

    /// Returns the members that no acceptor serves: those without an acceptor, abandoned by theirs, or stalled since
    /// the previous call of `unserved` or [`report`](Self::report).
    #[must_use]
    pub fn unserved(&self) -> Vec<MemberReport> {
        self.report().into_iter().filter(|member| member.health.is_unserved()).collect()
    }
}

impl Member {
    /// Returns the index of the member, from 0 in the order of opening; an [added](Group::add) one may get the index of
    /// a closed one. With [`Steering::ByCpu`] it is also the number of its CPU until a member leaves.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Returns the address of the group.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener().local_addr()
    }

    /// Releases the listener from the group, to hand it over to another process.
    ///
    /// The kernel still balances connections to it, but the group reports the member as closed. Once the listener is
    /// closed, do not [add](Group::add) members: the group does not see that the kernel has changed their order.
    #[must_use = "dropping the listener closes it and resets the connections in its queue"]
    pub fn into_listener(mut self) -> TcpListener {
        let shared = Arc::clone(&self.shared);
        // `Slot::report` upgrades its weak reference under this lock.
        let _state = shared.lock();
        let listener = self.listener.take().and_then(Arc::into_inner);
        listener.expect("under the lock, the member holds the only strong reference")
    }

    /// Closes the listener unless it was closed or released.
    fn close(&mut self, state: &mut State) {
        if let Some(listener) = self.listener.take() {
            state.on_closing(self.index);
            drop(listener);
            state.on_closed(self.index);
        }
    }

    fn listener(&self) -> &TcpListener {
        self.listener.as_ref().expect("`close` and `into_listener` end the member")
    }
}

impl<F: Filter> EpollAcceptor<Member, F> {
    /// Removes the member from its group without resetting a connection.
    ///
    /// If the kernel migrates the queue of a closed member (`net.ipv4.tcp_migrate_req` = 1 on Linux 5.14 or later),
    /// closes the listener and wakes the other members. Otherwise, attaches a program that assigns new connections to
    /// the other members, then shuts the member down as [`shutdown_gracefully`](Control::shutdown_gracefully) does. The
    /// last member of a group is always shut down this way.
    ///
    /// Where queues do not migrate, [`Pending::Keep`] only stops it, and its queue is reset when it is dropped: use
    /// `Serve` or `Refuse`.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use std::time::Duration;
    /// use epoll_acceptor::group::{Group, LeaveOutcome};
    /// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, Pending, Refusal, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let epoll = Epoll::new()?;
    /// let mut events = Events::with_capacity(8)?;
    /// let mut group = Group::builder(SocketAddr::from(([127, 0, 0, 1], 0))).bind(2)?;
    /// let member = group.take().unwrap();
    /// let acceptor = LevelTriggered::on(member).register(&epoll, Token(0))?;
    ///
    /// match acceptor.leave_group(Pending::Serve(Refusal::Reset), Duration::from_secs(5)) {
    ///     LeaveOutcome::Migrated(count) => println!("{count} connections migrated"),
    ///     LeaveOutcome::ShuttingDown(mut acceptor) => {
    ///         while !acceptor.state().is_terminal() {
    ///             epoll.wait(&mut events, None)?;
    ///             acceptor.drain(drop)?;
    ///         }
    ///         assert_eq!(acceptor.shutdown_report().unwrap().abandoned, Some(0));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ## Migration exceeds the backlog
    ///
    /// The kernel adds migrated connections to the queues of the other members beyond their backlog.
    ///
    /// ## `Steering::ByCpu`
    ///
    /// The last member takes over the position of the leaving one, and with it the CPU.
    #[doc(alias = "tcp_migrate_req")]
    pub fn leave_group(mut self, pending: Pending, timeout: Duration) -> LeaveOutcome<F> {
        let shared = Arc::clone(&self.listener().shared);
        // Held until the queue has migrated: otherwise the members that receive it could leave too.
        let mut state = shared.lock();
        if state.mark_leaving(self.listener().index) && queues_migrate() {
            let count = accept_queue(self.listener()).map_or(0, |queue| queue.depth);
            self.core.deregister();
            self.core.backend_mut().listener_mut().close(&mut state);
            drop(state);
            return LeaveOutcome::Migrated(count);
        }
        drop(state);
        self.control().shutdown_gracefully(pending, timeout);
        LeaveOutcome::ShuttingDown(self)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Appends an open member to the kernel's order. Returns its index.
    fn insert(&mut self, listener: &Arc<TcpListener>) -> usize {
        let is_free =
            |index: &usize| !self.order.contains(index) && self.slots[*index].listener.strong_count() == 0;
        let closed = (0..self.slots.len()).find(is_free);
        let index = closed.unwrap_or(self.slots.len());
        if closed.is_none() {
            self.slots.push(Slot::default());
        }
        self.slots[index] = Slot::new(listener);
        self.order.push(index);
        index
    }

    /// Steers new connections away from a member. Returns whether its queue may migrate: another member must be known
    /// to be open (a released one may be closed), and no leaving member may get a part.
    fn mark_leaving(&mut self, index: usize) -> bool {
        self.forget_closed();
        self.slots[index].leaving = true;
        let others = || self.order.iter().filter(|other| **other != index).map(|other| &self.slots[*other]);
        let open = |slot: &Slot| slot.listener.strong_count() > 0;
        let may_migrate = others().any(|slot| !slot.leaving && open(slot))
            && !others().any(|slot| slot.leaving && open(slot));
        if others().any(|slot| !slot.leaving) {
            // If the kernel forbids it, the shutdown drops new handshakes with this member, and the client retries.
            let _ = self.update_steering();
        }
        may_migrate
    }

    /// Updates `order` after listeners were shut down from outside: the last socket has replaced each.
    fn forget_closed(&mut self) {
        let is_closed = |index: &usize| {
            self.slots[*index].listener.upgrade().is_some_and(|open| !sys::is_listening(open.as_fd()))
        };
        while let Some(position) = self.order.iter().position(is_closed) {
            self.order.swap_remove(position);
        }
    }

    /// Steers connections away from the two positions that change when a member is closed: until the program is
    /// updated, it would choose leaving members. It still chooses them for a moment if only the member at the last
    /// position stays.
    fn on_closing(&mut self, index: usize) {
        self.forget_closed();
        let last = self.order.len().saturating_sub(1);
        let leaving = |other: &usize| self.slots[*other].leaving;
        if !self.order.iter().any(|other| *other != index && leaving(other)) {
            return;
        }
        let without: Vec<_> = (0..=last)
            .filter(|position| {
                *position == last || self.order[*position] == index || leaving(&self.order[*position])
            })
            .collect();
        let any = self.listeners().next();
        if let Some(any) = any.filter(|_| without.len() <= last) {
            self.program_attached |= steering::attach(&any, self.steering, last + 1, &without).is_ok();
        }
    }

    /// Updates `order` after a member was closed, and wakes the other members.
    fn on_closed(&mut self, index: usize) {
        if let Some(position) = self.order.iter().position(|other| *other == index) {
            self.order.swap_remove(position);
        }
        self.slots[index] = Slot::default();
        let _ = self.update_steering();
        // Some kernels migrate the queue without waking the sibling. `shutdown(SHUT_WR)` wakes the epolls of a TCP
        // listener, which report an event only if its queue is not empty.
        for listener in self.listeners() {
            let _ = sys::shutdown_write(listener.as_fd());
        }
    }

    /// Attaches or detaches the program for the open members, excluding those that are leaving unless all are.
    fn update_steering(&mut self) -> io::Result<()> {
        let Some(any) = self.listeners().next() else { return Ok(()) };
        let members = self.order.len();
        let mut leaving: Vec<_> =
            (0..members).filter(|position| self.slots[self.order[*position]].leaving).collect();
        if leaving.len() == members {
            leaving.clear();
        }
        if !leaving.is_empty() || self.steering != Steering::ByHash {
            steering::attach(&any, self.steering, members, &leaving)?;
            self.program_attached = true;
        } else if self.program_attached {
            steering::detach(&any);
            self.program_attached = false;
        }
        Ok(())
    }

    fn listeners(&self) -> impl Iterator<Item = Arc<TcpListener>> {
        let open = self.order.iter().filter_map(|index| self.slots[*index].listener.upgrade());
        open.filter(|listener| sys::is_listening(listener.as_fd()))
    }
}

impl Slot {
    fn new(listener: &Arc<TcpListener>) -> Self {
        Self { listener: Arc::downgrade(listener), ..Self::default() }
    }

    fn report(&mut self, index: usize) -> MemberReport {
        let listener = self.listener.upgrade().filter(|listener| sys::is_listening(listener.as_fd()));
        let queue = listener.as_ref().and_then(|listener| accept_queue(listener).ok());
        let health = match (&listener, &self.control) {
            (None, _) => MemberHealth::Closed,
            (Some(_), None) => MemberHealth::Unserved,
            (Some(listener), Some(control)) => {
                let pending = match queue {
                    Some(queue) => queue.depth,
                    None => has_pending(listener).is_ok_and(|pending| pending).into(),
                };
                let now = Look { pending, passes: control.counters().passes, state: control.state() };
                health(self.last.replace(now), now)
            }
        };
        MemberReport { index, queue, health }
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener().as_fd()
    }
}

impl Listener for Member {
    type Stream = TcpStream;

    /// [`Group::report`] observes the acceptor through `control`.
    fn is_served_by(&self, control: Control) {
        let slot = &mut self.shared.lock().slots[self.index];
        (slot.control, slot.last) = (Some(control), None);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.close(&mut shared.lock());
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("index", &self.index)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}
