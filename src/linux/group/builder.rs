//! Opening a group and its further members.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Group, Member, Shared, Slot, State, Steering, steering};

/// The configuration of a [`Group`].
///
/// ```
/// use std::net::SocketAddr;
/// use epoll_acceptor::group::{Group, Steering};
///
/// # fn main() -> std::io::Result<()> {
/// let address = SocketAddr::from(([127, 0, 0, 1], 0));
/// let group = Group::builder(address).backlog(1024).steering(Steering::ByCpu).bind(4)?;
/// assert_eq!(group.report().len(), 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "`bind` opens the group"]
pub struct GroupBuilder {
    address: SocketAddr,
    backlog: u32,
    steering: Steering,
}

/// The default of `net.core.somaxconn` since Linux 5.4.
const BACKLOG: u32 = 4096;

impl GroupBuilder {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self { address, backlog: BACKLOG, steering: Steering::ByHash }
    }

    /// Sets the backlog of each member, 4096 by default. The kernel caps it at `net.core.somaxconn`.
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets how the kernel chooses a member, [`Steering::ByHash`] by default.
    pub const fn steering(mut self, steering: Steering) -> Self {
        self.steering = steering;
        self
    }

    /// Opens the group with this number of members.
    ///
    /// See [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for 0 members; [`AddrInUse`](io::ErrorKind::AddrInUse) if a socket
    /// of another user or without `SO_REUSEPORT` is bound to the address; otherwise the error of the system call. After
    /// an error no member is open.
    #[doc(alias = "SO_REUSEPORT")]
    #[doc(alias = "SO_ATTACH_REUSEPORT_CBPF")]
    pub fn bind(self, members: usize) -> io::Result<Group> {
        if members == 0 {
            let message = "a group must have 1 or more members";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let (sockets, address) = bind_sockets(self.address, members)?;
        // Binds all sockets before the first one listens: if a bind fails, no client has connected.
        let listeners = listen(sockets, self.backlog)?;
        let program_attached = self.steering != Steering::ByHash;
        if program_attached {
            steering::attach(&listeners[0], self.steering, members, &[])?;
        }
        let slots = listeners.iter().map(Slot::new).collect();
        let order = (0..members).collect();
        let state = State { slots, order, steering: self.steering, program_attached };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let member =
            |(index, listener)| Member { index, listener: Some(listener), shared: Arc::clone(&shared) };
        let untaken = (0..).zip(listeners).map(member).collect();
        Ok(Group { shared, untaken, address, backlog: self.backlog })
    }
}

impl Group {
    /// Opens this number of further members, for [`take`](Self::take).
    ///
    /// A new member gets the index of a closed one, if there is one. With [`Steering::ByCpu`] its CPU is the last: the
    /// fourth of four gets CPU 3. Do not open a second group on the address instead:
    /// [a group steers by the position of its members](crate::guide::multi_core#several-processes).
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// use epoll_acceptor::group::Group;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut group = Group::builder(SocketAddr::from(([127, 0, 0, 1], 0))).bind(1)?;
    /// group.add(3)?;
    /// assert_eq!(group.report().len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`bind`](GroupBuilder::bind), except that 0 members are allowed. After an error the new members are
    /// closed, and connections that they got meanwhile are reset.
    pub fn add(&mut self, members: usize) -> io::Result<()> {
        let (sockets, _) = bind_sockets(self.address, members)?;
        // The kernel appends each socket to its array when it listens; the lock keeps `order` equal.
        let mut state = self.shared.lock();
        state.forget_closed();
        let mut added = Vec::new();
        for listener in listen(sockets, self.backlog)? {
            let index = state.insert(&listener);
            added.push(Member { index, listener: Some(listener), shared: Arc::clone(&self.shared) });
        }
        let steered = state.update_steering();
        // Members that are dropped take the lock.
        drop(state);
        steered?;
        self.untaken.extend(added);
        Ok(())
    }
}

/// Returns the sockets and their address: with port 0, all get the port of the first.
fn bind_sockets(mut address: SocketAddr, members: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let mut sockets = Vec::new();
    for _ in 0..members {
        let socket = bind_socket(address)?;
        address = socket.local_addr()?.as_socket().unwrap_or(address);
        sockets.push(socket);
    }
    Ok((sockets, address))
}

/// Makes the sockets listen, in their order.
fn listen(sockets: Vec<Socket>, backlog: u32) -> io::Result<Vec<Arc<TcpListener>>> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    sockets.iter().try_for_each(|socket| socket.listen(backlog))?;
    Ok(sockets.into_iter().map(|socket| Arc::new(TcpListener::from(socket))).collect())
}

fn bind_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
