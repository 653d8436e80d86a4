//! One echoing connection.

use std::io::{ErrorKind, Read, Write};

/// How much is read at a time, and so the most that a connection buffers.
pub(crate) const CHUNK: usize = 4096;

/// A connection, and what it has read and not yet written back.
///
/// Backpressure: while anything is pending, nothing more is read. A client that does not read blocks its own writes, and
/// costs one chunk of memory.
#[derive(Debug)]
pub(crate) struct Echo<C> {
    pub(crate) connection: C,
    pending: Vec<u8>,
    waits_for: WaitsFor,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Data to read.
    Readable,
    /// Room in the send buffer.
    Writable,
}

/// The result of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for the same as before.
    Same,
    /// It waits for something else now.
    Changed(WaitsFor),
    /// The client has closed, or the connection is broken.
    Closed,
}

impl<C: Read + Write> Echo<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, pending: Vec::new(), waits_for: WaitsFor::Readable }
    }

    /// Reads once or writes once, so that no client starves the others.
    pub(crate) fn proceed(&mut self, buffer: &mut [u8; CHUNK]) -> Progress {
        let alive = if self.pending.is_empty() { self.read(buffer) } else { self.write_pending() };
        let waits_for = if self.pending.is_empty() { WaitsFor::Readable } else { WaitsFor::Writable };
        match alive {
            false => Progress::Closed,
            true if waits_for == self.waits_for => Progress::Same,
            true => {
                self.waits_for = waits_for;
                Progress::Changed(waits_for)
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.connection.read(buffer) {
            Ok(0) => false,
            Ok(length) => self.send(&buffer[..length]),
            Err(error) => is_transient(error.kind()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = match self.connection.write(bytes) {
            Ok(sent) => sent,
            Err(error) if is_transient(error.kind()) => 0,
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
            Err(error) => is_transient(error.kind()),
        }
    }
}

fn is_transient(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
