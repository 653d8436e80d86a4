//! The clients: one who holds the place, a crowd of which half quit, and the newcomers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a newcomer waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(800);
/// How long those wait who mean to stay; in a server that works nobody waits so long.
const LONG: Duration = Duration::from_secs(30);

const LINE: &[u8] = b"hello\n";

/// A client that speaks one line.
pub(crate) struct Client {
    stream: TcpStream,
}

/// What a client got for its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Its line came back.
    Answered,
    /// The connection was ended, with or without a last word.
    Refused,
    /// Nothing at all.
    Silence,
}

impl Client {
    /// Connects and says its line.
    pub(crate) fn ask(server: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(server)?;
        // Who was refused already cannot write any more: the reply will tell.
        let _ = stream.write_all(LINE);
        Ok(Self { stream })
    }

    /// Waits for the answer.
    pub(crate) fn reply(&mut self, patience: Duration) -> io::Result<Reply> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut heard = [0; LINE.len()];
        match self.stream.read_exact(&mut heard) {
            Ok(()) if heard == LINE => Ok(Reply::Answered),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(Reply::Silence)
            }
            Ok(()) | Err(_) => Ok(Reply::Refused),
        }
    }

    /// Says goodbye and waits until the server has closed: the place is free when this returns.
    pub(crate) fn leave(mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// Asks `count` times in a row, as new clients, and counts the answers.
pub(crate) fn newcomers_answered(server: SocketAddr, count: usize) -> io::Result<usize> {
    let mut answered = 0;
    for _ in 0..count {
        let mut newcomer = Client::ask(server)?;
        if newcomer.reply(PATIENCE)? == Reply::Answered {
            answered += 1;
            newcomer.leave()?;
        }
    }
    Ok(answered)
}

/// Those who connect while the place is taken: every other one quits at once, the rest ask and wait.
pub(crate) struct Crowd {
    waiting: JoinHandle<()>,
    fate: Arc<Fate>,
}

/// What has become of those who stayed, so far.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    answered: AtomicUsize,
    refused: AtomicUsize,
}

impl Crowd {
    /// Connects them all; when this returns they are in the queue.
    pub(crate) fn arrive(server: SocketAddr, size: usize) -> io::Result<Self> {
        let mut stayed = Vec::new();
        for number in 0..size {
            if number % 2 == 0 {
                drop(TcpStream::connect(server)?);
            } else {
                stayed.push(Client::ask(server)?);
            }
        }
        let fate = Arc::new(Fate::default());
        let waiting = thread::spawn({
            let fate = Arc::clone(&fate);
            move || stayed.into_iter().for_each(|client| fate.await_reply(client))
        });
        Ok(Self { waiting, fate })
    }

    /// How many were answered, and how many refused, until now.
    pub(crate) fn answered_and_refused(&self) -> (usize, usize) {
        (self.fate.answered.load(Ordering::Acquire), self.fate.refused.load(Ordering::Acquire))
    }

    /// Waits until all have gone; the listener should be closed by now.
    pub(crate) fn disperse(self) {
        self.waiting.join().expect("the crowd does not panic");
    }
}

impl Fate {
    /// They are served in the order in which they came, so they can be waited for in that order.
    fn await_reply(&self, mut client: Client) {
        match client.reply(LONG) {
            Ok(Reply::Answered) => {
                self.answered.fetch_add(1, Ordering::AcqRel);
                // Gone at once, or the place would never be free for the next one.
                let _ = client.leave();
            }
            Ok(Reply::Refused) | Err(_) => {
                self.refused.fetch_add(1, Ordering::AcqRel);
            }
            Ok(Reply::Silence) => {}
        }
    }
}
