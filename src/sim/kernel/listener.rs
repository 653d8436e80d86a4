//! Listening sockets: arrivals, the accept queue, shutdown.

use std::collections::VecDeque;

use super::connection::{ConnId, Connection, Stage};
use super::errno::{EINVAL, ENOTCONN, ENOTSOCK, EOPNOTSUPP};
use super::files::{FileId, Kind};
use super::{Errno, Fd, Kernel, Mask, Rules};

/// The kinds of listening sockets that differ.
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
    /// Which directions of a socket are shut.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    pub struct Shut: u8 {
        /// Nothing more is received (`SHUT_RD`).
        const RD = 1;
        /// Nothing more is sent (`SHUT_WR`).
        const WR = 2;
    }
}

/// Where clients connect to: one socket, until its last descriptor is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(FileId);

/// Why a client is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectError {
    /// Nobody listens (`ECONNREFUSED`).
    Refused,
    /// A Unix queue is full (`EAGAIN`).
    Again,
    /// A TCP queue is full: the SYN was dropped in silence. The client tries again after 1, 3, 7 s: call
    /// again.
    Dropped,
}

/// An error that an accept is to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The error.
    pub errno: Errno,
    /// Whether it takes the oldest connection along, which is then closed. One that does waits until there is
    /// one.
    pub consumes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Listener {
    family: Family,
    listening: bool,
    backlog: u32,
    queue: VecDeque<ConnId>,
    shut: Shut,
    barred: bool,
    faults: VecDeque<Fault>,
}

impl<R: Rules> Kernel<R> {
    /// Makes a bound socket that does not listen yet.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn socket(&mut self, family: Family) -> Result<Fd, Errno> {
        let (queue, faults) = (VecDeque::new(), VecDeque::new());
        let (listening, backlog, shut, barred) = (false, 0, Shut::empty(), false);
        let listener = Listener { family, listening, backlog, queue, shut, barred, faults };
        self.open(Kind::Listener(listener))
    }

    /// Makes a socket that listens.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn listener(&mut self, family: Family, backlog: i32) -> Result<Fd, Errno> {
        let fd = self.socket(family)?;
        self.listen(fd, backlog)?;
        Ok(fd)
    }

    /// Listens, or listens anew (listen(2)). The new backlog holds at once, what is queued stays (K30, K32).
    ///
    /// # Errors
    ///
    /// `EBADF`, or `ENOTSOCK` if it is none that can listen.
    pub fn listen(&mut self, fd: Fd, backlog: i32) -> Result<(), Errno> {
        let (_, listener) = self.listener_mut(fd)?;
        listener.backlog = R::backlog(backlog);
        listener.listening = true;
        if !R::relisten_keeps_queue() {
            listener.queue.clear();
        }
        Ok(())
    }

    /// Where clients connect to.
    ///
    /// # Errors
    ///
    /// `EBADF`, or `ENOTSOCK` if it is none that can listen.
    pub fn address(&self, fd: Fd) -> Result<Address, Errno> {
        let file = self.file(fd)?;
        self.at(Address(file)).map(|_| Address(file)).ok_or(ENOTSOCK)
    }

    /// A client connects: both steps.
    ///
    /// # Errors
    ///
    /// If it is not connected.
    pub fn connect(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let id = self.connect_begin(to)?;
        self.connect_finish(id);
        Ok(id)
    }

    /// A client connects, first step (K3): the connection is queued, and to be seen by accept and poll.
    /// Nobody has been told.
    ///
    /// # Errors
    ///
    /// If it is not connected.
    pub fn connect_begin(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let id = self.request(to)?;
        self.ack(id);
        Ok(id)
    }

    /// A client connects, second step (K3): the registrations of the listener are called. No effect the
    /// second time.
    pub fn connect_finish(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.call_due) else {
            return;
        };
        connection.call_due = false;
        let from = connection.listener;
        let Some(listener) = self.at(Address(from)) else { return };
        // The one family that looks before it calls.
        if listener.family != Family::Mptcp || !listener.queue.is_empty() {
            self.call_watchers(from, R::arrival_key(), 1);
        }
    }

    /// A TCP client sends a SYN: a request, half-open, which no acceptor sees (K36).
    ///
    /// # Errors
    ///
    /// If nobody listens, or the SYN is dropped because the accept queue is full, or the request queue is and
    /// there are no cookies.
    ///
    /// # Panics
    ///
    /// If it is a Unix socket, which has no handshake.
    pub fn syn(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let unix = self.at(to).is_some_and(|listener| listener.family == Family::Unix);
        assert!(!unix, "a Unix socket has no handshake");
        self.request(to)
    }

    /// The last ACK of a handshake arrives: the connection is queued, as by
    /// [`connect_begin`](Self::connect_begin), if there is room. If not, the client believes itself
    /// connected, and whatever it sends tries again (K37, K38). Returns whether it is queued now.
    pub fn ack(&mut self, id: ConnId) -> bool {
        let half_open = |connection: &&Connection| matches!(connection.stage, Stage::HalfOpen { .. });
        let Some(from) = self.connections.get(&id).filter(half_open).map(|c| c.listener) else {
            return false;
        };
        let Some(listener) = self.at_mut(from).filter(|listener| listener.listening) else { return false };
        if listener.is_full::<R>() {
            return false;
        }
        listener.queue.push_back(id);
        let shut = R::from_env(listener.family, listener.shut);
        let (barred, since) = (listener.barred, self.now);
        let connection = self.connection_mut(id);
        (connection.stage, connection.shut, connection.since) = (Stage::Queued, shut, since);
        connection.barred = barred;
        connection.call_due = true;
        true
    }

    /// Takes the oldest connection (accept4(2), non-blocking), and a descriptor for it.
    ///
    /// # Errors
    ///
    /// In this order (K50, K51): `EBADF`; what [`fail_accept`](Self::fail_accept) left; `EMFILE`, whatever
    /// the socket is; `ENOTSOCK`; `EINVAL` if it does not listen; `EAGAIN` if nothing is queued, also on a
    /// Unix listener that was shut.
    pub fn accept(&mut self, fd: Fd) -> Result<ConnId, Errno> {
        let file = self.file(fd)?;
        if let Some(errno) = self.scripted(file, false) {
            return Err(errno);
        }
        if R::descriptor_comes_first() {
            self.free_descriptor()?;
        }
        let listener = match &mut self.file_mut(file).kind {
            Kind::Listener(listener) => listener,
            Kind::Connection(_) => return Err(EINVAL),
            _ => return Err(ENOTSOCK),
        };
        let nothing = R::nothing_to_accept(listener.family, listener.listening, listener.shut);
        let locks_child = listener.family != Family::Unix;
        let id = R::dequeue(&mut listener.queue).ok_or(nothing)?;
        if locks_child {
            // The handshake holds the child's lock until the registrations were called (K3).
            self.connect_finish(id);
        }
        if let Some(errno) = self.scripted(file, true) {
            self.server_end_closed(id);
            return Err(errno);
        }
        let fd = self.open(Kind::Connection(id))?;
        self.accepted(id, fd);
        Ok(id)
    }

    /// Makes a later accept of this listener fail; several do so in their order.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK`
    pub fn fail_accept(&mut self, fd: Fd, fault: Fault) -> Result<(), Errno> {
        self.listener_mut(fd)?.1.faults.push_back(fault);
        Ok(())
    }

    /// The length of the accept queue as `TCP_INFO` tells it: nothing of a Unix socket, or of one that does
    /// not listen (K60, K73).
    #[must_use]
    pub fn depth(&self, fd: Fd) -> Option<u32> {
        let listener = self.at(Address(self.file(fd).ok()?))?;
        let told = listener.listening && listener.family != Family::Unix;
        told.then(|| u32::try_from(listener.queue.len()).unwrap_or(u32::MAX))
    }

    /// Whether the peers of its connections have addresses: those of Unix clients are nothing to tell them apart by.
    #[must_use]
    pub fn has_addresses(&self, fd: Fd) -> bool {
        self.file(fd).ok().and_then(|file| self.at(Address(file))).is_some_and(|at| at.family != Family::Unix)
    }

    /// What is queued there, oldest first; no system call tells that.
    pub fn queued(&self, at: Address) -> impl Iterator<Item = ConnId> + '_ {
        self.at(at).into_iter().flat_map(|listener| listener.queue.iter().copied())
    }

    /// Shuts a listener (shutdown(2)).
    ///
    /// For reading: a TCP or MPTCP one ends, its queue is reset, it shows `HUP` until it listens anew; a Unix
    /// one refuses whoever comes, shows `IN` and `RDHUP` for ever, and its queue stays acceptable (K23). For
    /// writing: a listening one only calls its registrations, all of them, which is how to announce a queue
    /// (K70).
    ///
    /// # Errors
    ///
    /// `EBADF`; `ENOTSOCK` if it is none that can listen; `ENOTCONN` from a TCP or MPTCP one that does not
    /// listen, and yet it is shut, and its connections are born shut if it listens later (K24).
    pub fn shutdown(&mut self, fd: Fd, how: Shut) -> Result<(), Errno> {
        let (file, listener) = self.listener_mut(fd)?;
        let (family, listening) = (listener.family, listener.listening);
        let ends = listening && R::shutdown_ends(family, how);
        if ends {
            (listener.listening, listener.shut) = (false, Shut::empty());
            listener.queue.clear();
            self.reset_unaccepted(file);
            if family == Family::Mptcp {
                self.call_watchers(file, R::mptcp_shutdown_key(), 1);
            }
            self.call_watchers(file, Mask::ERR, 1);
        } else if !listening || family == Family::Unix {
            listener.shut |= how;
        }
        if R::shutdown_tells(how) {
            self.call_watchers(file, R::shutdown_key(), R::shutdown_wakes());
        }
        if listening || family == Family::Unix { Ok(()) } else { Err(ENOTCONN) }
    }

    /// Has a TCP listener drop every SYN from now on (`IP_MINTTL` = 255). What is queued stays; a handshake that had
    /// begun is queued when it ends, and its connection is as deaf (K79).
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK`; `EOPNOTSUPP` for Unix and MPTCP.
    pub fn bar(&mut self, fd: Fd) -> Result<(), Errno> {
        let (_, listener) = self.listener_mut(fd)?;
        if !matches!(listener.family, Family::Tcp4 | Family::Tcp6) {
            return Err(EOPNOTSUPP);
        }
        listener.barred = true;
        Ok(())
    }

    /// Lets an accepted connection hear again (`IP_MINTTL` = 0).
    pub fn unbar(&mut self, id: ConnId) {
        self.connection_mut(id).barred = false;
    }

    /// Whether a connection is deaf to its client.
    #[must_use]
    pub fn is_barred(&self, id: ConnId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.barred)
    }

    fn request(&mut self, to: Address) -> Result<ConnId, ConnectError> {
        let listener = self.at(to).ok_or(ConnectError::Refused)?;
        let family = listener.family;
        if !listener.listening || R::refuses(family, listener.shut) {
            return Err(ConnectError::Refused);
        }
        if listener.barred {
            return Err(ConnectError::Dropped);
        }
        if listener.is_full::<R>() {
            return Err(if family == Family::Unix { ConnectError::Again } else { ConnectError::Dropped });
        }
        let crowded = self.requests(to.0) >= R::capacity(listener.backlog);
        if crowded && !self.syn_cookies {
            return Err(ConnectError::Dropped);
        }
        let stage = Stage::HalfOpen { cookie: crowded };
        Ok(self.arrive(Connection::new(family, to.0, stage)))
    }

    /// How many half-open requests the server remembers; cookies are remembered by the client alone.
    fn requests(&self, listener: FileId) -> usize {
        let remembered =
            |c: &&Connection| c.listener == listener && c.stage == Stage::HalfOpen { cookie: false };
        self.connections.values().filter(remembered).count()
    }

    fn scripted(&mut self, file: FileId, consumes: bool) -> Option<Errno> {
        let faults = &mut self.at_mut(file)?.faults;
        faults
            .front()
            .is_some_and(|fault| fault.consumes == consumes)
            .then(|| faults.pop_front())?
            .map(|f| f.errno)
    }

    fn at(&self, Address(file): Address) -> Option<&Listener> {
        match &self.files.get(&file)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    fn at_mut(&mut self, file: FileId) -> Option<&mut Listener> {
        match &mut self.files.get_mut(&file)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    fn listener_mut(&mut self, fd: Fd) -> Result<(FileId, &mut Listener), Errno> {
        let file = self.file(fd)?;
        self.at_mut(file).map(|listener| (file, listener)).ok_or(ENOTSOCK)
    }

    /// A peer's end of a queued connection is gone. In Linux that is all.
    pub(super) fn peer_left_queued(&mut self, listener: FileId, id: ConnId) {
        if !R::stays_queued() {
            self.at_mut(listener)
                .into_iter()
                .for_each(|listener| listener.queue.retain(|other| *other != id));
        }
    }
}

impl Listener {
    pub(super) fn shown(&self) -> Mask {
        let queued = Mask::READABLE.when(!self.queue.is_empty());
        let shut_for_reading = (Mask::READABLE | Mask::RDHUP).when(self.shut.contains(Shut::RD));
        match (self.family, self.listening) {
            (Family::Unix, true) => queued | shut_for_reading | Mask::HUP.when(self.shut.is_all()),
            (Family::Unix, false) => shut_for_reading | Mask::HUP | Mask::WRITABLE | Mask::WRBAND,
            (_, true) => queued,
            (_, false) => shut_for_reading | Mask::HUP | Mask::WRITABLE,
        }
    }

    fn is_full<R: Rules>(&self) -> bool {
        self.queue.len() >= R::capacity(self.backlog)
    }
}
