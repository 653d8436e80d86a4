//! What every server of this example does with a connection, whatever way it was accepted.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender};

/// How many connections each server takes at a time.
pub(crate) const LIMIT: u32 = 1;

/// An echo service whose first answer takes a while.
pub(crate) struct Service {
    /// Readable when the server should end.
    pub(crate) stop: UnixStream,
    /// Taken by the first request.
    pub(crate) errand: Option<Errand>,
}

/// What keeps the server busy with its first request until the whole crowd has arrived.
///
/// Many arrivals become one edge only while the server is not waiting for it. Under a real flood a server is
/// hardly ever waiting, so the arrivals coalesce by themselves; two hundred clients of one small example
/// might be taken one by one. So here the server has something to do before it waits again. Nothing else is
/// staged.
pub(crate) struct Errand {
    pub(crate) begun: Sender<()>,
    pub(crate) done: Receiver<()>,
}

/// What becomes of a connection after it was served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Keep,
    Close,
}

impl Service {
    /// Sends back what has come.
    pub(crate) fn answer(&mut self, mut connection: impl Read + Write) -> Next {
        let mut buffer = [0; 64];
        match connection.read(&mut buffer) {
            Ok(0) => Next::Close,
            Ok(length) => {
                self.run_errand();
                // A line fits into an empty send buffer; who has gone meanwhile is closed like the others.
                match connection.write_all(&buffer[..length]) {
                    Ok(()) => Next::Keep,
                    Err(_) => Next::Close,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Next::Keep,
            Err(_) => Next::Close,
        }
    }

    fn run_errand(&mut self) {
        if let Some(Errand { begun, done }) = self.errand.take() {
            // An error means that the other side has given up: then there is nothing to wait for.
            let _ = begun.send(()).map(|()| done.recv());
        }
    }
}
