//! The clients: one that occupies the server, many of which half quit, and later ones.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a later client waits for its reply.
pub(crate) const PATIENCE: Duration = Duration::from_millis(800);
/// How long the clients wait that do not quit. No client of a correct server waits that long.
const LONG: Duration = Duration::from_secs(30);

const LINE: &[u8] = b"hello\n";

/// A client that sends one line.
pub(crate) struct Client {
    stream: TcpStream,
}

/// What a client received in reply to its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Its line.
    Answered,
    /// The end of the connection, with or without a message.
    Refused,
    /// Nothing.
    Silence,
}

impl Client {
    /// Connects and sends the line.
    pub(crate) fn ask(server: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(server)?;
        // Fails if the server has refused the connection already; `reply` reports it.
        let _ = stream.write_all(LINE);
        Ok(Self { stream })
    }

    /// Waits for the reply.
    pub(crate) fn reply(&mut self, patience: Duration) -> io::Result<Reply> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut received = [0; LINE.len()];
        match self.stream.read_exact(&mut received) {
            Ok(()) if received == LINE => Ok(Reply::Answered),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(Reply::Silence)
            }
            Ok(()) | Err(_) => Ok(Reply::Refused),
        }
    }

    /// Closes and waits until the server has closed too: its permit is released when this returns.
    pub(crate) fn leave(mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// Connects `count` clients one after the other, and returns how many were answered.
pub(crate) fn count_answered(server: SocketAddr, count: usize) -> io::Result<usize> {
    let mut answered = 0;
    for _ in 0..count {
        let mut client = Client::ask(server)?;
        if client.reply(PATIENCE)? == Reply::Answered {
            answered += 1;
            client.leave()?;
        }
    }
    Ok(answered)
}

/// The clients that connect while the server is full: every other one quits at once, the rest ask and wait.
pub(crate) struct Clients {
    waiting: JoinHandle<()>,
    replies: Arc<Replies>,
}

/// The replies so far to the clients that wait.
#[derive(Debug, Default)]
struct Replies {
    answered: AtomicUsize,
    refused: AtomicUsize,
}

impl Clients {
    /// Connects `count` clients. All are queued when this returns.
    pub(crate) fn connect(server: SocketAddr, count: usize) -> io::Result<Self> {
        let mut stayed = Vec::new();
        for number in 0..count {
            if number % 2 == 0 {
                drop(TcpStream::connect(server)?);
            } else {
                stayed.push(Client::ask(server)?);
            }
        }
        let replies = Arc::new(Replies::default());
        let waiting = thread::spawn({
            let replies = Arc::clone(&replies);
            move || stayed.into_iter().for_each(|client| replies.await_reply(client))
        });
        Ok(Self { waiting, replies })
    }

    /// Returns how many were answered and how many refused so far.
    pub(crate) fn answered_and_refused(&self) -> (usize, usize) {
        (self.replies.answered.load(Ordering::Acquire), self.replies.refused.load(Ordering::Acquire))
    }

    /// Waits until all have closed. Close the listener first.
    pub(crate) fn join(self) {
        self.waiting.join().expect("the clients do not panic");
    }
}

impl Replies {
    /// The queue is FIFO, so one thread can wait for the clients in the order in which they connected.
    fn await_reply(&self, mut client: Client) {
        match client.reply(LONG) {
            Ok(Reply::Answered) => {
                self.answered.fetch_add(1, Ordering::AcqRel);
                // At once: the next client is served when this one has closed.
                let _ = client.leave();
            }
            Ok(Reply::Refused) | Err(_) => {
                self.refused.fetch_add(1, Ordering::AcqRel);
            }
            Ok(Reply::Silence) => {}
        }
    }
}
