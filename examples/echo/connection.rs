//! One echoing connection.

use std::io::{ErrorKind, Read, Write};

/// How much is read at a time, and so the most that a connection ever holds back.
pub(crate) const CHUNK: usize = 4096;

/// A connection, and what its client has sent and not yet taken back.
///
/// Back-pressure: as long as anything is pending, nothing more is read. A client that does not read what it
/// sent finds its own sending blocked, and costs one chunk of memory.
#[derive(Debug)]
pub(crate) struct Echo<C> {
    pub(crate) connection: C,
    pending: Vec<u8>,
    waits_for: WaitsFor,
}

/// What a connection needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Something to echo.
    Input,
    /// Room to send.
    Room,
}

/// What came of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for what it waited for before.
    Same,
    /// It waits for something else now.
    Changed(WaitsFor),
    /// The client has gone, or the connection is broken.
    Over,
}

impl<C: Read + Write> Echo<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, pending: Vec::new(), waits_for: WaitsFor::Input }
    }

    /// Does one read or one write's worth of work, so that no client keeps the others waiting.
    pub(crate) fn turn(&mut self, buffer: &mut [u8; CHUNK]) -> Turn {
        let alive = if self.pending.is_empty() { self.read(buffer) } else { self.write_pending() };
        let waits_for = if self.pending.is_empty() { WaitsFor::Input } else { WaitsFor::Room };
        match alive {
            false => Turn::Over,
            true if waits_for == self.waits_for => Turn::Same,
            true => {
                self.waits_for = waits_for;
                Turn::Changed(waits_for)
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.connection.read(buffer) {
            Ok(0) => false,
            Ok(length) => self.send(&buffer[..length]),
            Err(error) => is_passing(error.kind()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = match self.connection.write(bytes) {
            Ok(sent) => sent,
            Err(error) if is_passing(error.kind()) => 0,
            Err(_) => return false,
        };
        self.pending.extend_from_slice(&bytes[sent..]);
        true
    }

    fn write_pending(&mut self) -> bool {
        match self.connection.write(&self.pending) {
            Ok(sent) => {
                self.pending.drain(..sent);
                true
            }
            Err(error) => is_passing(error.kind()),
        }
    }
}

fn is_passing(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
