//! One worker: a thread that waits, accepts, and answers a byte with a byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::{Acceptor, Epoll, EpollAcceptor, Events, Interest, Strategy, Token};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::engines::BUDGET;

pub(crate) const LISTENER: Token = Token(u64::MAX);

/// Where connections come in.
pub(crate) trait Door: Send {
    /// One pass.
    fn pass(&mut self, taken: &mut Vec<TcpStream>);
}

impl<S: Strategy> Door for EpollAcceptor<TcpListener, S> {
    fn pass(&mut self, taken: &mut Vec<TcpStream>) {
        self.drain(|connection| taken.push(connection.into_parts().0)).expect("a listener that listens");
    }
}

/// A door of one's own, or one for all.
pub(crate) enum Entrance {
    Own(Box<dyn Door>),
    Shared(Arc<Mutex<Box<dyn Door>>>),
}

/// What one worker did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    /// Passes, that is, events of the listener.
    pub(crate) wakes: u64,
    /// Those that brought no connection.
    pub(crate) wasted: u64,
}

pub(crate) struct Worker {
    epoll: Arc<Epoll>,
    entrance: Entrance,
    taken: Vec<TcpStream>,
    pub(crate) tally: Tally,
}

impl Worker {
    pub(crate) fn new(epoll: Arc<Epoll>, entrance: Entrance) -> Self {
        Self { epoll, entrance, taken: Vec::with_capacity(BUDGET), tally: Tally::default() }
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
        match &mut self.entrance {
            Entrance::Own(door) => door.pass(&mut self.taken),
            // The lock is for accepting alone. Every event is answered by a pass: nobody may turn away from it.
            Entrance::Shared(door) => door.lock().expect("no worker panics").pass(&mut self.taken),
        }
        self.tally.wakes += 1;
        self.tally.wasted += u64::from(self.taken.is_empty());
        self.tally.accepted += self.taken.len() as u64;
        for stream in self.taken.drain(..) {
            if let Some(early) = answer(stream) {
                table.watch(&self.epoll, early);
            }
        }
    }
}

/// Answers the byte if it is there; else gives the connection back.
fn answer(mut stream: TcpStream) -> Option<TcpStream> {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(stream),
        // A client that is gone needs no answer.
        _ => {
            let _ = stream.write(b"!");
            None
        }
    }
}

/// The connections whose byte has not come yet, by the number of their descriptor.
pub(crate) struct Table(Vec<Mutex<Option<TcpStream>>>);

impl Table {
    pub(crate) fn new(descriptors: usize) -> Self {
        Self((0..descriptors.min(1 << 20)).map(|_| Mutex::new(None)).collect())
    }

    /// One-shot: where several threads wait on one epoll, one of them is told.
    fn watch(&self, epoll: &Epoll, stream: TcpStream) {
        let number = usize::try_from(stream.as_raw_fd()).expect("a descriptor");
        let mut place = self.0[number].lock().expect("no worker panics");
        let stream = place.insert(stream);
        let token = Token(number as u64);
        epoll.add(stream, token, Interest::IN | Interest::ONESHOT).expect("a registration");
    }

    fn take(&self, number: usize) -> Option<TcpStream> {
        self.0[number].lock().expect("no worker panics").take()
    }
}

/// What all threads of this process have run, and how often one of them went to sleep.
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
