//! Several listeners on one address, among which the kernel divides the clients (feature `group`).
//!
//! With `SO_REUSEPORT` each worker has a listener and an accept queue of its own. Nobody is woken for nothing and no
//! lock is shared; but a client belongs to the member that it was sent to, whether that one is busy, asleep or gone.
//! [The guide](crate::guide::cores) tells when that is worth it, and what else there is.
//!
//! # Traps
//!
//! ## A member that nobody serves
//!
//! The kernel goes on sending it its share of the clients, who are connected and wait for ever, while all other members
//! are well. [`Group::unserved`] names such members.
//!
//! ## A member that leaves
//!
//! Closing it resets everybody in its queue. [`EpollAcceptor::leave_group`] does not.
//!
//! ## Anybody of the same user can join
//!
//! A second server that is started by mistake on the same address does not fail: it gets its share of the clients. The
//! kernel asks for nothing but the same user and the same option.
//!
//! ## Not across processes
//!
//! A group knows the members that it has opened, and steers by their position among *all* sockets on the address:
//! [what comes of that](crate::guide::cores#a-group-and-another-process).

mod steering;

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::acceptor::EpollAcceptor;
use super::closing::WindingDown;
use super::listener::Listener;
use super::queue::{AcceptQueue, accept_queue};
use super::sys;
use crate::admission::policy::Admission;
use crate::drain::attendance::{Look, attendance};
use crate::drain::closing::Pending;
use crate::drain::shared::Control;
use crate::drain::strategy::Strategy;

pub use crate::drain::attendance::MemberHealth;
pub use steering::Steering;

/// Listeners on one address, opened together.
///
/// ```
/// use std::net::{SocketAddr, TcpStream};
/// use epoll_acceptor::{Acceptor, Epoll, Group, LevelTriggered, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let mut group = Group::builder(SocketAddr::from(([127, 0, 0, 1], 0))).bind(2)?;
/// let mut workers = Vec::new();
/// while let Some(member) = group.take() {
///     let epoll = Epoll::new()?; // in a thread of its own
///     let acceptor = LevelTriggered::on(member).register(&epoll, Token(0))?;
///     group.set_control(acceptor.listener(), acceptor.control());
///     workers.push((epoll, acceptor));
/// }
/// assert_eq!(group.unserved(), [], "each member has its acceptor");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the group closes the members that were not taken"]
pub struct Group {
    shared: Arc<Shared>,
    waiting: VecDeque<Member>,
    address: SocketAddr,
}

/// What a group is to be.
///
/// ```
/// use std::net::SocketAddr;
/// use epoll_acceptor::Group;
/// use epoll_acceptor::group::Steering;
///
/// # fn main() -> std::io::Result<()> {
/// let address = SocketAddr::from(([127, 0, 0, 1], 0));
/// let group = Group::builder(address).backlog(1024).steer(Steering::ByCpu).bind(4)?;
/// assert_eq!(group.report().len(), 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `bind`"]
pub struct GroupBuilder {
    address: SocketAddr,
    backlog: u32,
    steer: Steering,
}

/// One listener of a group, for an acceptor. Dropping it closes it: see
/// [`leave_group`](EpollAcceptor::leave_group).
#[must_use = "dropping it closes the listener, and resets whoever is queued"]
pub struct Member {
    index: usize,
    /// Invariant: there until the drop, or until it is released.
    listener: Option<Arc<TcpListener>>,
    shared: Arc<Shared>,
}

/// What can be said of a member just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberReport {
    /// Its number, from 0 in the order of opening.
    pub index: usize,
    /// Its accept queue; `None` of one that is closed.
    pub queue: Option<AcceptQueue>,
    /// Whether anybody attends to it.
    pub attendance: MemberHealth,
}

/// How a member leaves its group: [`EpollAcceptor::leave_group`].
#[derive(Debug)]
#[must_use = "a member that winds down has not left before it is finished"]
#[allow(clippy::large_enum_variant, reason = "made once in a member's life, and taken apart at once")]
pub enum LeaveOutcome<S: Strategy, A: Admission> {
    /// It is closed, and the kernel has given its queue to the other members: so many connections.
    Migrated(u32),
    /// The kernel sends it nobody any more; what it has queued is its own to serve or to refuse.
    Winding(WindingDown<Member, S, A>),
}

/// What the group and its members know of each other.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    /// The members as they stand in the kernel's array, where the last takes the place of one that leaves.
    order: Vec<usize>,
    steer: Steering,
    /// A program is attached.
    steered: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Weak, or looking at a member would keep it open.
    listener: Weak<TcpListener>,
    control: Option<Control>,
    last: Option<Look>,
    /// Nobody new is sent to it.
    leaves: bool,
}

/// As much as the kernel allows by itself (`net.core.somaxconn`), and far more than std's 128.
const BACKLOG: u32 = 4096;

impl Group {
    /// Begins to open a group on `address`. Port 0 takes a free one, the same for all.
    pub const fn builder(address: SocketAddr) -> GroupBuilder {
        GroupBuilder { address, backlog: BACKLOG, steer: Steering::ByHash }
    }

    /// The address on which all of them listen.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next member, for an acceptor. `None` when all were taken.
    ///
    /// Clients are sent to a member from the moment it was opened, taken or not.
    #[must_use = "dropping a member closes its listener, and resets whoever is queued"]
    pub fn take(&mut self) -> Option<Member> {
        self.waiting.pop_front()
    }

    /// Notes that the acceptor with this [`Control`] serves this member, which is its listener, in whatever loop it is
    /// hosted.
    ///
    /// # Panics
    ///
    /// If the member is another group's.
    pub fn set_control(&self, member: &Member, control: Control) {
        assert!(Arc::ptr_eq(&member.shared, &self.shared), "the member is another group's");
        let slot = &mut self.shared.lock().slots[member.index];
        (slot.control, slot.last) = (Some(control), None);
    }

    /// What can be said of each member, in the order of their opening. One system call each, and no privileges.
    ///
    /// A member is [`Stalled`](MemberHealth::Stalled) if connections waited at the last call and at this one, and its
    /// owner has begun no pass in between: so the time between two calls is what an owner has to answer an event. Once
    /// a second, say.
    #[must_use]
    pub fn report(&self) -> Vec<MemberReport> {
        let mut state = self.shared.lock();
        (0..).zip(&mut state.slots).map(|(index, slot)| slot.report(index)).collect()
    }

    /// The members at which clients wait for nobody: never attended, abandoned by their acceptor, or stalled since the
    /// last [`report`](Self::report) or call of this.
    #[must_use]
    pub fn unserved(&self) -> Vec<MemberReport> {
        self.report().into_iter().filter(|member| member.attendance.is_unserved()).collect()
    }
}

impl GroupBuilder {
    /// How many connections may wait at each member; 4096 unless set. The kernel cuts it to `net.core.somaxconn`.
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// How the kernel chooses a member; [`Steering::ByHash`] unless set.
    pub const fn steer(mut self, steer: Steering) -> Self {
        self.steer = steer;
        self
    }

    /// Opens so many members.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for none at all; [`AddrInUse`](io::ErrorKind::AddrInUse) if
    /// another user, or a socket without `SO_REUSEPORT`, has the address; and whatever the system refuses. Then none is
    /// left open.
    ///
    /// # References
    ///
    /// [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html)
    #[doc(alias = "SO_REUSEPORT")]
    #[doc(alias = "SO_ATTACH_REUSEPORT_CBPF")]
    pub fn bind(self, members: usize) -> io::Result<Group> {
        if members == 0 {
            let why = "a group without members would serve nobody: open 1 or more";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut address = self.address;
        let mut sockets = Vec::new();
        for _ in 0..members {
            let socket = bound(address)?;
            // The first one picks the port.
            address = socket.local_addr()?.as_socket().unwrap_or(address);
            sockets.push(socket);
        }
        // All are bound before the first one listens: a group is there whole, or not at all.
        let backlog = i32::try_from(self.backlog).unwrap_or(i32::MAX);
        sockets.iter().try_for_each(|socket| socket.listen(backlog))?;
        let steered = self.steer != Steering::ByHash;
        if steered {
            steering::attach(&sockets[0], self.steer, members, None)?;
        }
        let listeners: Vec<_> =
            sockets.into_iter().map(|socket| Arc::new(TcpListener::from(socket))).collect();
        let slot = |listener| Slot { listener: Arc::downgrade(listener), ..Slot::default() };
        let slots = listeners.iter().map(slot).collect();
        let state = State { slots, order: (0..members).collect(), steer: self.steer, steered };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let member =
            |(index, listener)| Member { index, listener: Some(listener), shared: Arc::clone(&shared) };
        let waiting = (0..).zip(listeners).map(member).collect();
        Ok(Group { shared, waiting, address })
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Member {
    /// Its number, from 0 in the order of opening. Under [`Steering::ByCpu`] also that of its CPU, as long as nobody has
    /// left.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The listener, which the group forgets: to be handed to another process, where it goes on being a member. The
    /// group reports it as closed, and what is attached goes on steering to it.
    ///
    /// # Panics
    ///
    /// Never: nobody else keeps a member's listener for longer than a look at it.
    #[must_use = "dropping the listener closes it and resets whoever is queued"]
    pub fn into_listener(mut self) -> TcpListener {
        let shared = Arc::clone(&self.shared);
        // A look at the group would hold it too.
        let _state = shared.lock();
        let listener = self.listener.take().and_then(Arc::into_inner);
        listener.expect("the listener is here, and nobody else's")
    }

    /// Closes it, if it has not been closed or released.
    fn close(&mut self, state: &mut State) {
        if let Some(listener) = self.listener.take() {
            drop(listener);
            state.closed(self.index);
        }
    }

    fn listener(&self) -> &TcpListener {
        self.listener.as_ref().expect("the listener is here until it is dropped or released")
    }
}

impl<S: Strategy, A: Admission> EpollAcceptor<Member, S, A> {
    /// Takes a member out of its group, resetting nobody.
    ///
    /// Where the kernel gives a closed member's queue to the others (`net.ipv4.tcp_migrate_req` = 1, Linux 5.14), it is
    /// closed, and they are told. Elsewhere, newcomers are steered to the others first, so that none of them is kept
    /// waiting, and the member is [wound down](Self::wind_down): go on with what comes back as it says.
    ///
    /// The last member has nobody to leave its queue to, and is always wound down.
    ///
    /// ## Migration knows no backlog
    ///
    /// The queues of the others take what comes, beyond what they hold otherwise.
    ///
    /// ## Under `Steering::ByCpu`
    ///
    /// The last member takes the leaving one's place, and its CPU.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use std::time::Duration;
    /// use epoll_acceptor::group::LeaveOutcome;
    /// use epoll_acceptor::{Acceptor, Epoll, Events, Group, LevelTriggered, Refusal, Pending, Token};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let epoll = Epoll::new()?;
    /// let mut events = Events::with_capacity(8)?;
    /// let mut group = Group::builder(SocketAddr::from(([127, 0, 0, 1], 0))).bind(2)?;
    /// let member = group.take().unwrap();
    /// let acceptor = LevelTriggered::on(member).register(&epoll, Token(0))?;
    ///
    /// match acceptor.leave_group(Pending::Serve(Refusal::Reset), Duration::from_secs(5)) {
    ///     LeaveOutcome::Migrated(waiting) => println!("{waiting} go to the others"),
    ///     LeaveOutcome::Winding(mut ending) => {
    ///         while !ending.is_over() {
    ///             epoll.wait(&mut events, Some(ending.timeout()))?;
    ///             if events.by_ref().any(|event| event.token() == Token(0)) {
    ///                 ending.drain(drop)?;
    ///             }
    ///         }
    ///         assert_eq!(ending.finish().left, Some(0));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "tcp_migrate_req")]
    pub fn leave_group(mut self, rest: Pending, within: Duration) -> LeaveOutcome<S, A> {
        let shared = Arc::clone(&self.listener().shared);
        // To the end: the others must not leave before the queue is theirs.
        let mut state = shared.lock();
        if state.leave(self.listener().index) && migrates() {
            let waiting = accept_queue(self.listener()).map_or(0, |queue| queue.depth);
            self.drain.retire();
            self.drain.port_mut().listener_mut().close(&mut state);
            drop(state);
            return LeaveOutcome::Migrated(waiting);
        }
        drop(state);
        LeaveOutcome::Winding(self.wind_down(rest, within))
    }
}

/// Whether the kernel gives a closed member's queue to the others.
fn migrates() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").is_ok_and(|value| value.trim() == "1")
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends nobody new to this member, if there are others to send them to. Whether there are.
    fn leave(&mut self, index: usize) -> bool {
        self.slots[index].leaves = true;
        let others = self.order.iter().any(|other| !self.slots[*other].leaves);
        if others {
            self.steer_anew();
        }
        others
    }

    /// A member has been closed.
    fn closed(&mut self, index: usize) {
        if let Some(position) = self.order.iter().position(|other| *other == index) {
            self.order.swap_remove(position);
        }
        self.steer_anew();
        // Some kernels give the others a closed member's queue and do not tell them. Who has nothing queued hears nothing.
        for listener in self.listeners().filter(|listener| sys::is_listening(listener.as_fd())) {
            let _ = sys::shutdown_write(listener.as_fd());
        }
    }

    /// Attaches the program for the members there are, without the first that leaves.
    fn steer_anew(&mut self) {
        let Some(any) = self.listeners().next() else { return };
        let leaving = self.order.iter().position(|index| self.slots[*index].leaves);
        if leaving.is_some() || self.steer != Steering::ByHash {
            // Where this is forbidden, newcomers to one that leaves are barred and try again.
            self.steered |= steering::attach(&any, self.steer, self.order.len(), leaving).is_ok();
        } else if self.steered {
            steering::detach(&any);
            self.steered = false;
        }
    }

    fn listeners(&self) -> impl Iterator<Item = Arc<TcpListener>> {
        self.order.iter().filter_map(|index| self.slots[*index].listener.upgrade())
    }
}

impl Slot {
    fn report(&mut self, index: usize) -> MemberReport {
        let listener = self.listener.upgrade();
        let queue = listener.and_then(|listener| accept_queue(&*listener).ok());
        let attendance = match (&queue, &self.control) {
            (None, _) => MemberHealth::Closed,
            (Some(_), None) => MemberHealth::Unserved,
            (Some(queue), Some(control)) => {
                let now =
                    Look { waiting: queue.depth, passes: control.counters().passes, state: control.state() };
                attendance(self.last.replace(now), now)
            }
        };
        MemberReport { index, queue, attendance }
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener().as_fd()
    }
}

impl Listener for Member {
    type Stream = TcpStream;
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
