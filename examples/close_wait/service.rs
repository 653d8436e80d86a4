//! What every server of this example does with a connection once it is accepted.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender};

/// How many connections each server serves at a time.
pub(crate) const LIMIT: u32 = 1;

/// An echo service whose first reply takes a while.
pub(crate) struct Service {
    /// Readable when the server should end.
    pub(crate) stop: UnixStream,
    /// Taken by the first request.
    pub(crate) task: Option<Task>,
}

/// Keeps the server busy with its first request until all clients are queued.
///
/// Many arrivals become one edge only while the server is not waiting for events. A server under load hardly ever waits,
/// so its arrivals coalesce by themselves; the two hundred clients of this example might be accepted one by one. So the
/// server is given something to do before it waits again. Nothing else is staged.
pub(crate) struct Task {
    pub(crate) begun: Sender<()>,
    pub(crate) done: Receiver<()>,
}

/// What to do with a connection after an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Keep,
    Close,
}

impl Service {
    /// Sends back what the client sent.
    pub(crate) fn answer(&mut self, mut connection: impl Read + Write) -> Next {
        let mut buffer = [0; 64];
        match connection.read(&mut buffer) {
            Ok(0) => Next::Close,
            Ok(length) => {
                self.run_task();
                // A line fits into an empty send buffer; an error means that the client is gone.
                match connection.write_all(&buffer[..length]) {
                    Ok(()) => Next::Keep,
                    Err(_) => Next::Close,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Next::Keep,
            Err(_) => Next::Close,
        }
    }

    fn run_task(&mut self) {
        if let Some(Task { begun, done }) = self.task.take() {
            // An error means that the other side has given up: there is nothing to wait for.
            let _ = begun.send(()).map(|()| done.recv());
        }
    }
}
