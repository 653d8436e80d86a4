//! Connections: what their peers do to them, and what the server sees of that.

use super::errno::{EAGAIN, ECONNRESET};
use super::files::FileId;
use super::listener::Family;
use super::{Errno, Fd, Kernel, Mask, Rules, Shut};

/// A connection, from the first sign of the client to the end of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// Where a connection stands, as its client would say if it knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It has been asked for and is not queued.
    HalfOpen,
    /// It waits to be accepted.
    Queued,
    /// The server has it.
    Accepted,
    /// The server accepted and closed it, or a failed accept did.
    Closed,
    /// It was reset before it was accepted: its listener was shut or closed.
    Reset,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    pub(super) listener: FileId,
    pub(super) stage: Stage,
    /// The listener's registrations have not been called yet.
    pub(super) call_due: bool,
    /// What is shut on the server's end.
    pub(super) shut: Shut,
    /// When it was queued; once accepted, how long it was.
    pub(super) since: u64,
    /// Nothing that its client sends arrives (K79).
    pub(super) barred: bool,
    family: Family,
    unread: u64,
    /// The peer has said that nothing more comes.
    ended: bool,
    /// The peer has no end any more, or is waiting for nothing.
    left: bool,
    reset: bool,
    /// An error that a read has not returned yet.
    error: Option<Errno>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    HalfOpen { cookie: bool },
    Queued,
    Accepted { fd: Fd, file: FileId },
    Closed,
    Reset,
}

impl<R: Rules> Kernel<R> {
    /// The client sends so many bytes. If its handshake was not finished, that tries to finish it (K37, K39).
    pub fn send(&mut self, id: ConnId, bytes: u64) {
        self.finish_handshake(id);
        let Some(connection) = self.heard(id).filter(|connection| !connection.ended) else { return };
        if connection.shut.is_all() {
            // Born shut (K24): the data is answered by a reset.
            return self.reset(id);
        }
        connection.unread += bytes;
        self.tell_owner(id, R::arrival_key(), 1);
    }

    /// The client closes in good order: what it sent can be read, then comes the end. A queued connection
    /// stays (K34).
    pub fn quit(&mut self, id: ConnId) {
        self.finish_handshake(id);
        let Some(connection) = self.heard(id) else { return self.leave(id) };
        if connection.ended {
            return;
        }
        connection.ended = true;
        connection.shut |= if connection.family == Family::Unix { Shut::all() } else { Shut::RD };
        self.peer_gone(id);
        self.tell_owner(id, Mask::empty(), 0);
    }

    /// The client resets the connection, or as a Unix client closes it. A queued connection stays (K34); a
    /// half-open one is gone.
    pub fn reset(&mut self, id: ConnId) {
        if self.connections.get(&id).is_some_and(|connection| connection.family == Family::Unix) {
            return self.quit(id);
        }
        let Some(connection) = self.heard(id) else { return self.leave(id) };
        if connection.ended && connection.shut.is_all() {
            // Ended from both sides (K24): nothing is left to reset.
            return;
        }
        connection.reset = true;
        connection.shut = Shut::all();
        connection.error = Some(ECONNRESET);
        self.peer_gone(id);
        self.tell_owner(id, Mask::ERR, 1);
        self.tell_owner(id, Mask::empty(), 0);
    }

    /// The server reads all there is of a connection it has accepted: the number of bytes, 0 for the end
    /// (K34).
    ///
    /// # Errors
    ///
    /// `EAGAIN`, also for one it has not; `ECONNRESET` once after a reset.
    pub fn read(&mut self, id: ConnId) -> Result<u64, Errno> {
        let accepted = |c: &&mut Connection| matches!(c.stage, Stage::Accepted { .. });
        let connection = self.connections.get_mut(&id).filter(accepted).ok_or(EAGAIN)?;
        if connection.unread > 0 {
            return Ok(std::mem::take(&mut connection.unread));
        }
        if connection.ended && R::end_hides_reset() {
            return Ok(0);
        }
        let error = if R::reset_is_read_once() { connection.error.take() } else { connection.error };
        match error {
            Some(errno) => Err(errno),
            None if connection.shut.contains(Shut::RD) => Ok(0),
            None => Err(EAGAIN),
        }
    }

    /// The server closes a connection it has accepted: all its descriptors.
    pub fn close_connection(&mut self, id: ConnId) {
        if let Some(Stage::Accepted { file, .. }) =
            self.connections.get(&id).map(|connection| connection.stage)
        {
            self.table.retain(|_, other| *other != file);
            self.release(file);
        }
    }

    /// Whether its client has reset a connection: its address can be asked for no more.
    #[must_use]
    pub fn is_reset(&self, id: ConnId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.reset)
    }

    /// The descriptor that accept made for a connection.
    #[must_use]
    pub fn descriptor(&self, id: ConnId) -> Option<Fd> {
        match self.connections.get(&id)?.stage {
            Stage::Accepted { fd, .. } => Some(fd),
            _ => None,
        }
    }

    /// How long an accepted connection was queued, in nanoseconds; of a Unix one the kernel cannot say (K67).
    /// Linux rounds it to the tick of its clock, a few milliseconds; the model does not.
    #[must_use]
    pub fn time_queued(&self, id: ConnId) -> Option<u64> {
        let connection = self.connections.get(&id)?;
        let told = connection.family != Family::Unix && matches!(connection.stage, Stage::Accepted { .. });
        told.then_some(connection.since)
    }

    /// Where a connection stands; `None` once both ends are gone.
    #[must_use]
    pub fn fate(&self, id: ConnId) -> Option<Fate> {
        Some(match self.connections.get(&id)?.stage {
            Stage::HalfOpen { .. } => Fate::HalfOpen,
            Stage::Queued => Fate::Queued,
            Stage::Accepted { .. } => Fate::Accepted,
            Stage::Closed => Fate::Closed,
            Stage::Reset => Fate::Reset,
        })
    }

    /// Every connection of which an end is left, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.connections.keys().copied()
    }

    pub(super) fn arrive(&mut self, connection: Connection) -> ConnId {
        let id = ConnId(self.connections_made);
        self.connections_made += 1;
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn accepted(&mut self, id: ConnId, fd: Fd) {
        let (file, now) = (self.table[&fd], self.now);
        let connection = self.connection_mut(id);
        connection.stage = Stage::Accepted { fd, file };
        connection.since = now - connection.since;
    }

    pub(super) fn server_end_closed(&mut self, id: ConnId) {
        self.end(id, Stage::Closed);
    }

    /// The end of a listener for everybody who was not accepted yet (K35).
    pub(super) fn reset_unaccepted(&mut self, listener: FileId) {
        let unaccepted = |c: &Connection| matches!(c.stage, Stage::HalfOpen { .. } | Stage::Queued);
        let of_it = self.connections.iter().filter(|(_, c)| c.listener == listener && unaccepted(c));
        for id in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id, Stage::Reset);
        }
    }

    pub(super) fn connection_mut(&mut self, id: ConnId) -> &mut Connection {
        self.connections.get_mut(&id).expect("a connection lives as long as one of its ends")
    }

    /// The connection, if the server's end is there to hear its peer.
    fn heard(&mut self, id: ConnId) -> Option<&mut Connection> {
        let hears =
            |c: &&mut Connection| !c.reset && matches!(c.stage, Stage::Queued | Stage::Accepted { .. });
        self.connections.get_mut(&id).filter(hears)
    }

    fn finish_handshake(&mut self, id: ConnId) {
        if self.ack(id) {
            self.connect_finish(id);
        }
    }

    /// The peer leaves a connection of which the server has nothing any more, or nothing yet.
    fn leave(&mut self, id: ConnId) {
        let nothing = |stage| matches!(stage, Stage::HalfOpen { .. } | Stage::Closed | Stage::Reset);
        if self.connections.get(&id).is_some_and(|connection| nothing(connection.stage)) {
            self.connections.remove(&id);
        }
    }

    fn peer_gone(&mut self, id: ConnId) {
        let connection = self.connection_mut(id);
        connection.left = true;
        if connection.stage == Stage::Queued {
            let listener = connection.listener;
            self.peer_left_queued(listener, id);
        }
    }

    fn end(&mut self, id: ConnId, stage: Stage) {
        let connection = self.connection_mut(id);
        connection.stage = stage;
        if connection.left {
            self.connections.remove(&id);
        }
    }

    /// The registrations of an accepted connection are called.
    fn tell_owner(&mut self, id: ConnId, key: Mask, exclusive: usize) {
        if let Stage::Accepted { file, .. } = self.connection_mut(id).stage {
            self.call_watchers(file, key, exclusive);
        }
    }
}

impl Connection {
    pub(super) fn new(family: Family, listener: FileId, stage: Stage) -> Self {
        Self {
            listener,
            stage,
            call_due: false,
            shut: Shut::empty(),
            since: 0,
            barred: false,
            family,
            unread: 0,
            ended: false,
            left: false,
            reset: false,
            error: None,
        }
    }

    pub(super) fn shown(&self) -> Mask {
        let writable =
            if self.family == Family::Unix { Mask::WRITABLE | Mask::WRBAND } else { Mask::WRITABLE };
        writable
            | Mask::READABLE.when(self.unread > 0)
            | (Mask::READABLE | Mask::RDHUP).when(self.shut.contains(Shut::RD))
            | Mask::HUP.when(self.shut.is_all())
            | Mask::ERR.when(self.error.is_some())
    }
}
