//! The loops by hand: what somebody would write who knows what comes. No limit, no counters, no commands, no errors
//! that are survived, no other thread: the calls and nothing else.

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::calls::{self, LISTENER};
use super::predict::Predict;
use super::{BUDGET, Engine, LONE_PERIOD, Strategy};

/// A listener on an epoll, and what to do at each wake-up.
pub struct ByHand<P> {
    epoll: OwnedFd,
    listener: TcpListener,
    /// The mask to repeat at the beginning of each pass, after which nothing is owed however the pass ends.
    again: Option<u32>,
    pass: P,
    events: Vec<libc::epoll_event>,
    taken: Vec<OwnedFd>,
}

impl<P: FnMut(&TcpListener, &mut Vec<OwnedFd>)> ByHand<P> {
    /// Room for so many connections at once is made here, once.
    pub fn new(listener: TcpListener, mask: c_int, modifies: bool, room: usize, pass: P) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (epoll, mask) = (calls::epoll()?, calls::bits(mask));
        calls::control(&epoll, libc::EPOLL_CTL_ADD, &listener, mask)?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; 64];
        let again = modifies.then_some(mask);
        Ok(Self { epoll, listener, again, pass, events, taken: Vec::with_capacity(room) })
    }
}

/// The same calls in the same order as this crate's acceptor with that strategy makes, for bursts whose size is told.
pub fn told(
    listener: TcpListener,
    strategy: Strategy,
    burst: usize,
) -> ByHand<impl FnMut(&TcpListener, &mut Vec<OwnedFd>)> {
    let mask = match strategy {
        Strategy::Level => libc::EPOLLIN | libc::EPOLLRDHUP,
        Strategy::Edge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
        // The kernel refuses EPOLLRDHUP with it.
        Strategy::Exclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
    };
    let period = if burst == 1 { LONE_PERIOD } else { 1 };
    ByHand::new(listener, mask, strategy == Strategy::Edge, burst, periodic(period)).expect("a loop by hand")
}

impl<P: FnMut(&TcpListener, &mut Vec<OwnedFd>)> Engine for ByHand<P> {
    fn take(&mut self, count: usize) {
        while self.taken.len() < count {
            for at in 0..calls::wait(&self.epoll, &mut self.events) {
                match self.events[at].u64 {
                    LISTENER => {
                        if let Some(mask) = self.again {
                            calls::control(&self.epoll, libc::EPOLL_CTL_MOD, &self.listener, mask)
                                .expect("a re-arm");
                        }
                        (self.pass)(&self.listener, &mut self.taken);
                    }
                    other => unreachable!("{other}"),
                }
            }
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}

/// Until the queue says that it is empty, and with the peer's address: what nearly everyone writes.
pub fn until_eagain(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    while let Some(stream) = calls::accept_with_peer(listener) {
        taken.push(stream);
    }
}

/// One connection a wake-up.
pub fn one(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    taken.push(calls::accept(listener));
}

/// As many as are queued, and not one more.
pub fn depth(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    several(listener, taken, calls::queued(listener));
}

/// With the crate's own rule of whether to count or to take one.
pub fn guessing() -> impl FnMut(&TcpListener, &mut Vec<OwnedFd>) {
    let mut predict = Predict::default();
    move |listener, taken| {
        if predict.counts() {
            let before = taken.len();
            depth(listener, taken);
            predict.learn(u32::try_from(taken.len() - before).expect("no more than a queue holds"));
        } else {
            one(listener, taken);
        }
    }
}

/// One wake-up in so many counts what waits; the others take one.
fn periodic(period: usize) -> impl FnMut(&TcpListener, &mut Vec<OwnedFd>) {
    let mut wakes: usize = 0;
    move |listener, taken| {
        wakes += 1;
        let due = if wakes % period == 0 { calls::queued(listener).min(BUDGET) } else { 1 };
        several(listener, taken, due);
    }
}

fn several(listener: &TcpListener, taken: &mut Vec<OwnedFd>, due: usize) {
    for _ in 0..due {
        taken.push(calls::accept(listener));
    }
}
