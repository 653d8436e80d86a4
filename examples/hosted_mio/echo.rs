//! One echoing connection in an edge-triggered loop: it proceeds until it would block, or until its share of the round is
//! used up.

use std::io::{ErrorKind, Read, Write};

/// How much is read at a time, and so the most that a connection buffers.
const CHUNK: usize = 4096;
/// Reads and writes per round, so that no client starves the others.
const SHARE: u32 = 16;

#[derive(Debug)]
pub(crate) struct Echo<C> {
    pub(crate) connection: C,
    pending: Vec<u8>,
}

/// The result of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for the next edge.
    Blocked,
    /// Its share is used up, and no edge will report the rest.
    Yielded,
    /// The client has closed, or the connection is broken.
    Closed,
}

impl<C: Read + Write> Echo<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, pending: Vec::new() }
    }

    pub(crate) fn proceed(&mut self) -> Progress {
        for _ in 0..SHARE {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return Progress::Closed,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Blocked,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Closed,
            }
        }
        Progress::Yielded
    }

    /// Writes what is pending, or reads if nothing is. Returns `false` at the end of the stream.
    fn step(&mut self) -> std::io::Result<bool> {
        if self.pending.is_empty() {
            let mut buffer = [0; CHUNK];
            let length = self.connection.read(&mut buffer)?;
            self.pending.extend_from_slice(&buffer[..length]);
            return Ok(length > 0);
        }
        let sent = self.connection.write(&self.pending)?;
        self.pending.drain(..sent);
        Ok(true)
    }
}
