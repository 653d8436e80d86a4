//! One worker: a thread that waits, accepts, and answers a byte with a byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::{Acceptor, Connection, Epoll, EpollAcceptor, Events, Interest, Token};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::engines::BUDGET;

pub(crate) const LISTENER: Token = Token(u64::MAX);

/// Where a worker accepts.
pub(crate) enum Source {
    /// Its own acceptor.
    Own(Box<EpollAcceptor<TcpListener>>),
    /// One acceptor for all workers.
    Shared(Arc<Mutex<EpollAcceptor<TcpListener>>>),
}

/// What one worker did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) accepted: u64,
    /// Passes: events of the listener.
    pub(crate) wakes: u64,
    /// Passes without a connection.
    pub(crate) wasted: u64,
}

pub(crate) struct Worker {
    epoll: Arc<Epoll>,
    source: Source,
    taken: Vec<TcpStream>,
    pub(crate) stats: Stats,
}

impl Worker {
    pub(crate) fn new(epoll: Arc<Epoll>, source: Source) -> Self {
        Self { epoll, source, taken: Vec::with_capacity(BUDGET), stats: Stats::default() }
    }

    pub(crate) fn run(&mut self, table: &Table, stop: &AtomicBool) {
        let mut events = Events::with_capacity(64).expect("a buffer");
        while !stop.load(Ordering::Relaxed) {
            self.epoll.wait(&mut events, Some(Duration::from_millis(20))).expect("a wait");
            for event in &mut events {
                match event.token() {
                    LISTENER => self.pass(table),
                    Token(number) => {
                        let stream = table.take(usize::try_from(number).expect("a descriptor"));
                        answer(stream.expect("one event for each connection"));
                    }
                }
            }
        }
    }

    fn pass(&mut self, table: &Table) {
        let keep = |connection: Connection<TcpStream>| self.taken.push(connection.into_parts().0);
        let passed = match &mut self.source {
            Source::Own(acceptor) => acceptor.drain(keep),
            // The lock covers accepting alone. It must not be skipped when it is taken: every event needs a pass.
            Source::Shared(acceptor) => acceptor.lock().expect("no worker panics").drain(keep),
        };
        passed.expect("a listener that listens");
        self.stats.wakes += 1;
        self.stats.wasted += u64::from(self.taken.is_empty());
        self.stats.accepted += self.taken.len() as u64;
        for stream in self.taken.drain(..) {
            if let Some(early) = answer(stream) {
                table.register(&self.epoll, early);
            }
        }
    }
}

/// Answers the byte if it has arrived; otherwise returns the connection.
fn answer(mut stream: TcpStream) -> Option<TcpStream> {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(stream),
        // A client that is gone needs no reply.
        _ => {
            let _ = stream.write(b"!");
            None
        }
    }
}

/// The connections whose byte has not arrived, by descriptor number.
pub(crate) struct Table(Vec<Mutex<Option<TcpStream>>>);

impl Table {
    pub(crate) fn new(descriptors: usize) -> Self {
        Self((0..descriptors.min(1 << 20)).map(|_| Mutex::new(None)).collect())
    }

    /// Registers one-shot: of several threads that wait on one epoll, one gets the event.
    fn register(&self, epoll: &Epoll, stream: TcpStream) {
        let number = usize::try_from(stream.as_raw_fd()).expect("a descriptor");
        let mut slot = self.0[number].lock().expect("no worker panics");
        let stream = slot.insert(stream);
        let token = Token(number as u64);
        epoll.add(stream, token, Interest::IN | Interest::ONESHOT).expect("a registration");
    }

    fn take(&self, number: usize) -> Option<TcpStream> {
        self.0[number].lock().expect("no worker panics").take()
    }
}

/// The CPU time of this process, and how often its threads have blocked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) sleeps: u64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("this process");
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Self {
            cpu: Duration::from_micros(micros.unsigned_abs()),
            sleeps: usage.voluntary_context_switches().unsigned_abs(),
        }
    }

    pub(crate) fn add_since(&mut self, before: Self) {
        let now = Self::now();
        self.cpu += now.cpu - before.cpu;
        self.sleeps += now.sleeps - before.sleeps;
    }
}
