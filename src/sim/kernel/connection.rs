//! Connections: the operations of their peers and their effect on the server's end.

use super::errno::{EAGAIN, ECONNRESET};
use super::files::FileId;
use super::listener::Family;
use super::{Errno, Fd, Kernel, Mask, Rules, Shut};

/// A connection, from the client's SYN or connect until both ends are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// The state of a connection's server end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnState {
    /// The handshake is not complete.
    HalfOpen,
    /// The connection is in the accept queue.
    Queued,
    /// The server has accepted the connection.
    Accepted,
    /// The server, or a failed accept, has closed the connection.
    Closed,
    /// The listener was shut down or closed before the connection was accepted.
    Reset,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    pub(super) listener: FileId,
    pub(super) server_end: ServerEnd,
    /// The listener's registrations have not been woken (K3).
    pub(super) wakeup_pending: bool,
    /// The shutdown state of the server's end.
    pub(super) shut: Shut,
    pub(super) queued_at: u64,
    /// Valid once accepted.
    queue_time: u64,
    /// Packets of the client are dropped (K79).
    pub(super) min_ttl: bool,
    family: Family,
    unread: u64,
    fin_received: bool,
    /// The peer has closed or reset its end.
    peer_closed: bool,
    reset: bool,
    /// The error that the next read returns.
    error: Option<Errno>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ServerEnd {
    HalfOpen { cookie: bool },
    Queued,
    Accepted { fd: Fd, file: FileId },
    Closed,
    Reset,
}

impl<R: Rules> Kernel<R> {
    /// Sends `bytes` from the client. Retries an unfinished handshake first (K37, K39).
    pub fn send(&mut self, id: ConnId, bytes: u64) {
        self.finish_handshake(id);
        let Some(connection) = self.receiving(id).filter(|connection| !connection.fin_received) else {
            return;
        };
        if connection.shut.is_all() {
            // Both directions were inherited as shut down (K24): data is answered with a reset.
            return self.reset(id);
        }
        connection.unread += bytes;
        self.wake_accepted(id, R::arrival_key(), 1);
    }

    /// Closes the client's end with a FIN, after the data it sent. A queued connection stays queued (K34).
    pub fn quit(&mut self, id: ConnId) {
        self.finish_handshake(id);
        let Some(connection) = self.receiving(id) else { return self.remove_if_unserved(id) };
        if connection.fin_received {
            return;
        }
        connection.fin_received = true;
        connection.shut |= if connection.family == Family::Unix { Shut::all() } else { Shut::RD };
        self.peer_closed(id);
        self.wake_accepted(id, Mask::empty(), 0);
    }

    /// Resets the connection from the client's end; a Unix client closes it instead. A queued connection stays
    /// queued (K34), a half-open request is removed.
    pub fn reset(&mut self, id: ConnId) {
        if self.connections.get(&id).is_some_and(|connection| connection.family == Family::Unix) {
            return self.quit(id);
        }
        let Some(connection) = self.receiving(id) else { return self.remove_if_unserved(id) };
        if connection.fin_received && connection.shut.is_all() {
            // Closed in both directions (K24): there is nothing to reset.
            return;
        }
        connection.reset = true;
        connection.shut = Shut::all();
        connection.error = Some(ECONNRESET);
        self.peer_closed(id);
        self.wake_accepted(id, Mask::ERR, 1);
        self.wake_accepted(id, Mask::empty(), 0);
    }

    /// Reads all data from an accepted connection and returns the number of bytes, 0 after a FIN (K34).
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is no data or the connection is not accepted; `ECONNRESET` once after a reset.
    pub fn read(&mut self, id: ConnId) -> Result<u64, Errno> {
        let accepted = |c: &&mut Connection| matches!(c.server_end, ServerEnd::Accepted { .. });
        let connection = self.connections.get_mut(&id).filter(accepted).ok_or(EAGAIN)?;
        if connection.unread > 0 {
            return Ok(std::mem::take(&mut connection.unread));
        }
        if connection.fin_received && R::fin_hides_reset() {
            return Ok(0);
        }
        let error = if R::reset_is_read_once() { connection.error.take() } else { connection.error };
        match error {
            Some(errno) => Err(errno),
            None if connection.shut.contains(Shut::RD) => Ok(0),
            None => Err(EAGAIN),
        }
    }

    /// Closes all descriptors of an accepted connection.
    pub fn close_connection(&mut self, id: ConnId) {
        if let Some(ServerEnd::Accepted { file, .. }) =
            self.connections.get(&id).map(|connection| connection.server_end)
        {
            self.table.retain(|_, other| *other != file);
            self.release(file);
        }
    }

    /// Returns whether the client has reset the connection, after which getpeername(2) fails.
    #[must_use]
    pub fn is_reset(&self, id: ConnId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.reset)
    }

    /// Returns the descriptor that accept opened for a connection.
    #[must_use]
    pub fn descriptor(&self, id: ConnId) -> Option<Fd> {
        match self.connections.get(&id)?.server_end {
            ServerEnd::Accepted { fd, .. } => Some(fd),
            _ => None,
        }
    }

    /// Returns how long an accepted connection was queued, in nanoseconds; `None` for a Unix connection (K67).
    ///
    /// Linux rounds to its clock tick of a few milliseconds; the model does not.
    #[must_use]
    pub fn time_queued(&self, id: ConnId) -> Option<u64> {
        let connection = self.connections.get(&id)?;
        let measured =
            connection.family != Family::Unix && matches!(connection.server_end, ServerEnd::Accepted { .. });
        measured.then_some(if self.fills_tcp_info { connection.queue_time } else { 0 })
    }

    /// Returns the state of a connection; `None` once both ends are closed.
    #[must_use]
    pub fn conn_state(&self, id: ConnId) -> Option<ConnState> {
        Some(match self.connections.get(&id)?.server_end {
            ServerEnd::HalfOpen { .. } => ConnState::HalfOpen,
            ServerEnd::Queued => ConnState::Queued,
            ServerEnd::Accepted { .. } => ConnState::Accepted,
            ServerEnd::Closed => ConnState::Closed,
            ServerEnd::Reset => ConnState::Reset,
        })
    }

    /// Returns the connections with an open end, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.connections.keys().copied()
    }

    pub(super) fn insert_connection(&mut self, connection: Connection) -> ConnId {
        let id = ConnId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn accepted(&mut self, id: ConnId, fd: Fd) {
        let (file, now) = (self.table[&fd], self.now);
        let connection = self.connection_mut(id);
        connection.server_end = ServerEnd::Accepted { fd, file };
        connection.queue_time = now - connection.queued_at;
    }

    pub(super) fn server_end_closed(&mut self, id: ConnId) {
        self.end(id, ServerEnd::Closed);
    }

    /// Resets the queued connections and half-open requests of a listener (K35).
    pub(super) fn reset_unaccepted(&mut self, listener: FileId) {
        let unaccepted =
            |c: &Connection| matches!(c.server_end, ServerEnd::HalfOpen { .. } | ServerEnd::Queued);
        let affected = self.connections.iter().filter(|(_, c)| c.listener == listener && unaccepted(c));
        for id in affected.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id, ServerEnd::Reset);
        }
    }

    pub(super) fn connection_mut(&mut self, id: ConnId) -> &mut Connection {
        self.connections.get_mut(&id).expect("a connection exists while one of its ends is open")
    }

    /// Returns the connection if its server end can receive.
    fn receiving(&mut self, id: ConnId) -> Option<&mut Connection> {
        let receiving = |c: &&mut Connection| {
            !c.reset && matches!(c.server_end, ServerEnd::Queued | ServerEnd::Accepted { .. })
        };
        self.connections.get_mut(&id).filter(receiving)
    }

    fn finish_handshake(&mut self, id: ConnId) {
        if self.ack(id) {
            self.connect_finish(id);
        }
    }

    /// Closes the peer's end of a connection that has no server end.
    fn remove_if_unserved(&mut self, id: ConnId) {
        let unserved = |c: &Connection| {
            matches!(c.server_end, ServerEnd::HalfOpen { .. } | ServerEnd::Closed | ServerEnd::Reset)
        };
        if self.connections.get(&id).is_some_and(unserved) {
            self.connections.remove(&id);
        }
    }

    fn peer_closed(&mut self, id: ConnId) {
        let connection = self.connection_mut(id);
        connection.peer_closed = true;
        if connection.server_end == ServerEnd::Queued {
            let listener = connection.listener;
            self.peer_closed_queued(listener, id);
        }
    }

    fn end(&mut self, id: ConnId, server_end: ServerEnd) {
        let connection = self.connection_mut(id);
        connection.server_end = server_end;
        if connection.peer_closed {
            self.connections.remove(&id);
        }
    }

    /// Wakes the registrations of a connection if it is accepted.
    fn wake_accepted(&mut self, id: ConnId, key: Mask, nr_exclusive: usize) {
        if let ServerEnd::Accepted { file, .. } = self.connection_mut(id).server_end {
            self.wake_wait_queue(file, key, nr_exclusive);
        }
    }
}

impl Connection {
    pub(super) fn new(family: Family, listener: FileId, server_end: ServerEnd) -> Self {
        Self {
            listener,
            server_end,
            wakeup_pending: false,
            shut: Shut::empty(),
            queued_at: 0,
            queue_time: 0,
            min_ttl: false,
            family,
            unread: 0,
            fin_received: false,
            peer_closed: false,
            reset: false,
            error: None,
        }
    }

    pub(super) fn readiness(&self) -> Mask {
        let writable =
            if self.family == Family::Unix { Mask::WRITABLE | Mask::WRBAND } else { Mask::WRITABLE };
        writable
            | Mask::READABLE.when(self.unread > 0)
            | (Mask::READABLE | Mask::RDHUP).when(self.shut.contains(Shut::RD))
            | Mask::HUP.when(self.shut.is_all())
            | Mask::ERR.when(self.error.is_some())
    }
}
