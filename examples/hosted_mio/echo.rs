//! One echoing connection in a loop that tells of edges: it works until there is nothing more to do, or until
//! it has had its share.

use std::io::{ErrorKind, Read, Write};

/// How much is read at a time, and so the most that a connection ever holds back.
const CHUNK: usize = 4096;
/// Reads and writes in one turn, so that no client keeps the others waiting.
const SHARE: u32 = 16;

#[derive(Debug)]
pub(crate) struct Echo<C> {
    pub(crate) connection: C,
    pending: Vec<u8>,
}

/// What came of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for the next edge.
    Waits,
    /// Its share is used up, and no edge will tell of the rest.
    More,
    /// The client has gone, or the connection is broken.
    Over,
}

impl<C: Read + Write> Echo<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, pending: Vec::new() }
    }

    pub(crate) fn turn(&mut self) -> Turn {
        for _ in 0..SHARE {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return Turn::Over,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Over,
            }
        }
        Turn::More
    }

    /// Writes what is pending, or else reads; `false` at the end of the stream.
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
