//! Listening sockets: arrivals, the accept queue, shutdown.

use std::collections::VecDeque;

use super::connection::{ConnId, Connection, ServerEnd};
use super::errno::{EINVAL, ENOTCONN, ENOTSOCK, EOPNOTSUPP};
use super::files::{FileId, Kind};
use super::{Errno, Fd, Kernel, Mask, Rules};

/// The family of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// A Unix stream or seqpacket socket.
    Unix,
    /// Multipath TCP.
    Mptcp,
}

bitflags::bitflags! {
    /// The directions of a socket that are shut down.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    pub struct Shut: u8 {
        /// Reception (`SHUT_RD`).
        const RD = 1;
        /// Transmission (`SHUT_WR`).
        const WR = 2;
    }
}

/// The address that clients connect to: one socket, until its last descriptor is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(FileId);

/// A failed connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectError {
    /// No socket listens (`ECONNREFUSED`).
    Refused,
    /// The queue of a Unix listener is full (`EAGAIN`).
    Again,
    /// The SYN was dropped without an answer. Call again for the retransmission; Linux clients send it after 1, 3
    /// and 7 s.
    Dropped,
}

/// An injected accept error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The error.
    pub errno: Errno,
    /// Whether the error consumes the oldest connection, which is closed. Such an error is delayed until a connection
    /// is queued.
    pub consumes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Listener {
    family: Family,
    listening: bool,
    backlog: u32,
    queue: VecDeque<ConnId>,
    shut: Shut,
    min_ttl: bool,
    faults: VecDeque<Fault>,
}

impl<R: Rules> Kernel<R> {
    /// Creates a bound socket that does not listen.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn socket(&mut self, family: Family) -> Result<Fd, Errno> {
        let (queue, faults) = (VecDeque::new(), VecDeque::new());
        let (listening, backlog, shut, min_ttl) = (false, 0, Shut::empty(), false);
        let listener = Listener { family, listening, backlog, queue, shut, min_ttl, faults };
        self.open(Kind::Listener(listener))
    }

    /// Creates a listening socket.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn listener(&mut self, family: Family, backlog: i32) -> Result<Fd, Errno> {
        let fd = self.socket(family)?;
        self.listen(fd, backlog)?;
        Ok(fd)
    }

    /// Starts listening or changes the backlog, which takes effect at once and keeps the queue (listen(2), K30, K32).
    ///
    /// # Errors
    ///
    /// `EBADF`; `ENOTSOCK` if `fd` is not from [`socket`](Self::socket) or [`listener`](Self::listener).
    pub fn listen(&mut self, fd: Fd, backlog: i32) -> Result<(), Errno> {
        let (_, listener) = self.listener_mut(fd)?;
        listener.backlog = R::backlog(backlog);
        listener.listening = true;
        if !R::relisten_keeps_queue() {
            listener.queue.clear();
        }
        Ok(())
    }

    /// Returns the address that clients connect to.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK` as for [`listen`](Self::listen).
    pub fn address(&self, fd: Fd) -> Result<Address, Errno> {
        let file = self.file(fd)?;
        self.listener_at(Address(file)).map(|_| Address(file)).ok_or(ENOTSOCK)
    }

    /// Connects a client: [`connect_begin`](Self::connect_begin), then [`connect_finish`](Self::connect_finish).
    ///
    /// # Errors
    ///
    /// If the connection is not queued.
    pub fn connect(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let id = self.connect_begin(to)?;
        self.connect_finish(id);
        Ok(id)
    }

    /// Queues the connection of a client, visible to accept and poll, without a wakeup: the first step of an arrival
    /// (K3).
    ///
    /// # Errors
    ///
    /// If the connection is not queued.
    pub fn connect_begin(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let id = self.request(to)?;
        self.ack(id);
        Ok(id)
    }

    /// Wakes the listener's registrations for a queued connection: the second step of an arrival (K3). Has no effect
    /// a second time.
    pub fn connect_finish(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.wakeup_pending)
        else {
            return;
        };
        connection.wakeup_pending = false;
        let from = connection.listener;
        let Some(listener) = self.listener_at(Address(from)) else { return };
        // Only MPTCP checks the queue before the wakeup.
        if listener.family != Family::Mptcp || !listener.queue.is_empty() {
            self.wake_wait_queue(from, R::arrival_key(), 1);
        }
    }

    /// Sends the SYN of a TCP client, which leaves a half-open request that accept and poll do not see (K36).
    ///
    /// # Errors
    ///
    /// If no socket listens or the SYN is dropped: the accept queue is full, the SYN queue is full and SYN cookies are
    /// off, or `IP_MINTTL` is set.
    ///
    /// # Panics
    ///
    /// If the listener is a Unix socket, which has no handshake.
    pub fn syn(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let unix = self.listener_at(to).is_some_and(|listener| listener.family == Family::Unix);
        assert!(!unix, "a Unix socket has no handshake");
        self.request(to)
    }

    /// Delivers the last ACK of a handshake and returns whether the connection is queued now.
    ///
    /// If the accept queue is full, the request stays half-open although the client is connected; the client's next
    /// data or FIN retries (K37, K38).
    pub fn ack(&mut self, id: ConnId) -> bool {
        let half_open =
            |connection: &&Connection| matches!(connection.server_end, ServerEnd::HalfOpen { .. });
        let Some(from) = self.connections.get(&id).filter(half_open).map(|c| c.listener) else {
            return false;
        };
        let Some(listener) = self.listener_at_mut(from).filter(|listener| listener.listening) else {
            return false;
        };
        if listener.is_full::<R>() {
            return false;
        }
        listener.queue.push_back(id);
        let shut = R::inherited_shutdown(listener.family, listener.shut);
        let (min_ttl, now) = (listener.min_ttl, self.now);
        let connection = self.connection_mut(id);
        connection.server_end = ServerEnd::Queued;
        connection.shut = shut;
        connection.queued_at = now;
        connection.min_ttl = min_ttl;
        connection.wakeup_pending = true;
        true
    }

    /// Accepts the oldest connection and opens a descriptor for it (accept4(2), non-blocking).
    ///
    /// # Errors
    ///
    /// In this order (K50, K51): `EBADF`; an error from [`fail_accept`](Self::fail_accept); `EMFILE`, whatever the
    /// file; `ENOTSOCK`; `EINVAL` if the socket does not listen; `EAGAIN` if the queue is empty, also on a Unix
    /// listener that was shut down.
    pub fn accept(&mut self, fd: Fd) -> Result<ConnId, Errno> {
        let file = self.file(fd)?;
        if let Some(errno) = self.take_fault(file, false) {
            return Err(errno);
        }
        if R::descriptor_checked_first() {
            self.free_descriptor()?;
        }
        let listener = match &mut self.file_mut(file).kind {
            Kind::Listener(listener) => listener,
            Kind::Connection(_) => return Err(EINVAL),
            _ => return Err(ENOTSOCK),
        };
        let empty = R::empty_accept_error(listener.family, listener.listening, listener.shut);
        let locks_child = listener.family != Family::Unix;
        let id = R::dequeue(&mut listener.queue).ok_or(empty)?;
        if locks_child {
            // The handshake holds the child's lock until it has woken the registrations (K3).
            self.connect_finish(id);
        }
        if let Some(errno) = self.take_fault(file, true) {
            self.server_end_closed(id);
            return Err(errno);
        }
        let fd = self.open(Kind::Connection(id))?;
        self.accepted(id, fd);
        Ok(id)
    }

    /// Injects an error into a later accept from this listener. Several errors take effect in order.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK`
    pub fn fail_accept(&mut self, fd: Fd, fault: Fault) -> Result<(), Errno> {
        self.listener_mut(fd)?.1.faults.push_back(fault);
        Ok(())
    }

    /// Returns the length of the accept queue as in `TCP_INFO`; `None` for a Unix socket or one that does not listen
    /// (K60, K73).
    #[must_use]
    pub fn depth(&self, fd: Fd) -> Option<u32> {
        let listener = self.listener_at(Address(self.file(fd).ok()?))?;
        let reported = listener.listening && listener.family != Family::Unix;
        let depth = if self.fills_tcp_info { listener.queue.len() } else { 0 };
        reported.then(|| u32::try_from(depth).unwrap_or(u32::MAX))
    }

    /// Returns whether peer addresses distinguish clients of this listener; those of Unix clients do not.
    #[must_use]
    pub fn has_addresses(&self, fd: Fd) -> bool {
        self.file(fd)
            .ok()
            .and_then(|file| self.listener_at(Address(file)))
            .is_some_and(|at| at.family != Family::Unix)
    }

    /// Returns the queued connections, oldest first. No system call shows them.
    pub fn queued(&self, at: Address) -> impl Iterator<Item = ConnId> + '_ {
        self.listener_at(at).into_iter().flat_map(|listener| listener.queue.iter().copied())
    }

    /// Shuts down a listener (shutdown(2)).
    ///
    /// `RD` on TCP and MPTCP stops listening and resets the queue; the socket shows `HUP` until the next `listen`.
    /// `RD` on Unix refuses new connections and shows `IN` and `RDHUP` forever; queued connections can still be
    /// accepted (K23). `WR` on a listening socket only wakes all registrations, exclusive ones included (K70).
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK` as for [`listen`](Self::listen); `ENOTCONN` from a TCP or MPTCP socket that does not listen.
    /// Despite `ENOTCONN` the shutdown state is set, and connections inherit it after a later `listen` (K24).
    pub fn shutdown(&mut self, fd: Fd, how: Shut) -> Result<(), Errno> {
        let (file, listener) = self.listener_mut(fd)?;
        let (family, listening) = (listener.family, listener.listening);
        let closes = listening && R::shutdown_closes(family, how);
        if closes {
            (listener.listening, listener.shut) = (false, Shut::empty());
            listener.queue.clear();
            self.reset_unaccepted(file);
            if let (Family::Mptcp, Some(key)) = (family, R::mptcp_shutdown_key()) {
                self.wake_wait_queue(file, key, 1);
            }
            self.wake_wait_queue(file, Mask::ERR, 1);
        } else if !listening || family == Family::Unix {
            listener.shut |= how;
        }
        if R::shutdown_notifies(how) {
            self.wake_wait_queue(file, R::shutdown_key(), R::shutdown_exclusive_max());
        }
        if listening || family == Family::Unix { Ok(()) } else { Err(ENOTCONN) }
    }

    /// Makes a TCP listener drop every new SYN (`IP_MINTTL` = 255).
    ///
    /// Queued connections stay. A handshake in progress completes, and its connection inherits the option (K79).
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK`; `EOPNOTSUPP` for Unix and MPTCP.
    pub fn set_min_ttl(&mut self, fd: Fd) -> Result<(), Errno> {
        let (_, listener) = self.listener_mut(fd)?;
        if !matches!(listener.family, Family::Tcp4 | Family::Tcp6) {
            return Err(EOPNOTSUPP);
        }
        listener.min_ttl = true;
        Ok(())
    }

    /// Clears the option on an accepted connection (`IP_MINTTL` = 0).
    pub fn clear_min_ttl(&mut self, id: ConnId) {
        self.connection_mut(id).min_ttl = false;
    }

    /// Returns whether a connection has inherited `IP_MINTTL` and drops all packets of its client.
    #[must_use]
    pub fn has_min_ttl(&self, id: ConnId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.min_ttl)
    }

    fn request(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let listener = self.listener_at(to).ok_or(ConnectError::Refused)?;
        let family = listener.family;
        if !listener.listening || R::refuses(family, listener.shut) {
            return Err(ConnectError::Refused);
        }
        if listener.min_ttl {
            return Err(ConnectError::Dropped);
        }
        if listener.is_full::<R>() {
            return Err(if family == Family::Unix { ConnectError::Again } else { ConnectError::Dropped });
        }
        let syn_queue_full = self.syn_queue_len(to.0) >= R::capacity(listener.backlog);
        if syn_queue_full && !self.syn_cookies {
            return Err(ConnectError::Dropped);
        }
        let server_end = ServerEnd::HalfOpen { cookie: syn_queue_full };
        Ok(self.insert_connection(Connection::new(family, to.0, server_end)))
    }

    /// Returns the length of the SYN queue, where SYN cookies take no room.
    fn syn_queue_len(&self, listener: FileId) -> usize {
        let queued =
            |c: &&Connection| c.listener == listener && c.server_end == ServerEnd::HalfOpen { cookie: false };
        self.connections.values().filter(queued).count()
    }

    fn take_fault(&mut self, file: FileId, consumes: bool) -> Option<Errno> {
        let faults = &mut self.listener_at_mut(file)?.faults;
        faults
            .front()
            .is_some_and(|fault| fault.consumes == consumes)
            .then(|| faults.pop_front())?
            .map(|f| f.errno)
    }

    fn listener_at(&self, Address(file): Address) -> Option<&Listener> {
        match &self.files.get(&file)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    fn listener_at_mut(&mut self, file: FileId) -> Option<&mut Listener> {
        match &mut self.files.get_mut(&file)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    fn listener_mut(&mut self, fd: Fd) -> Result<(FileId, &mut Listener), Errno> {
        let file = self.file(fd)?;
        self.listener_at_mut(file).map(|listener| (file, listener)).ok_or(ENOTSOCK)
    }

    /// Handles the close or reset of a queued connection by its peer, which Linux ignores (K34).
    pub(super) fn peer_closed_queued(&mut self, listener: FileId, id: ConnId) {
        if !R::stays_queued() {
            self.listener_at_mut(listener)
                .into_iter()
                .for_each(|listener| listener.queue.retain(|other| *other != id));
        }
    }
}

impl Listener {
    pub(super) fn readiness(&self) -> Mask {
        let queued = Mask::READABLE.when(!self.queue.is_empty());
        let shut_rd = (Mask::READABLE | Mask::RDHUP).when(self.shut.contains(Shut::RD));
        match (self.family, self.listening) {
            (Family::Unix, true) => queued | shut_rd | Mask::HUP.when(self.shut.is_all()),
            (Family::Unix, false) => shut_rd | Mask::HUP | Mask::WRITABLE | Mask::WRBAND,
            (_, true) => queued,
            (_, false) => shut_rd | Mask::HUP | Mask::WRITABLE,
        }
    }

    fn is_full<R: Rules>(&self) -> bool {
        self.queue.len() >= R::capacity(self.backlog)
    }
}
