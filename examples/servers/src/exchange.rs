//! A connection of the servers whose loop must not block.

use std::io::{ErrorKind, Read, Write};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n";
const END_OF_HEAD: u32 = u32::from_be_bytes(*b"\r\n\r\n");
/// Reads and writes per event, so that no client starves the others.
const SHARE: u32 = 16;

/// Answers requests without a body, one after the other.
///
/// Backpressure: while an answer is not sent, nothing more is read.
#[derive(Debug)]
pub struct Exchange<C> {
    /// The connection, to register it.
    pub connection: C,
    /// The last four bytes of the head of a request; 0 between requests.
    head: u32,
    output: Vec<u8>,
    answered: bool,
}

/// The result of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It would block.
    Blocked,
    /// Its share is used up: no further edge reports the rest.
    Yielded,
    /// The client has closed, or the connection is broken.
    Closed,
}

impl<C: Read + Write> Exchange<C> {
    /// Begins with the first request.
    pub const fn new(connection: C) -> Self {
        Self { connection, head: 0, output: Vec::new(), answered: false }
    }

    /// Reads and writes until the connection would block, or its share is used up.
    pub fn proceed(&mut self) -> Progress {
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

    /// Returns whether it waits for room in the send buffer, and not for a request.
    pub const fn is_sending(&self) -> bool {
        !self.output.is_empty()
    }

    /// Returns whether the end of the service may close it: a request was answered, and no further one has begun.
    pub const fn is_idle(&self) -> bool {
        self.answered && self.head == 0 && self.output.is_empty()
    }

    /// Sends what is left of the answers, or reads if nothing is. Returns `false` at the end of the stream.
    fn step(&mut self) -> std::io::Result<bool> {
        if self.is_sending() {
            let sent = self.connection.write(&self.output)?;
            self.output.drain(..sent);
            return Ok(true);
        }
        let mut buffer = [0; 4096];
        let length = self.connection.read(&mut buffer)?;
        for byte in &buffer[..length] {
            self.head = self.head << 8 | u32::from(*byte);
            if self.head == END_OF_HEAD {
                self.output.extend_from_slice(ANSWER);
                (self.head, self.answered) = (0, true);
            }
        }
        Ok(length > 0)
    }
}
