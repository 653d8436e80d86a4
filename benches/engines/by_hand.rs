//! Hand-written loops, optimal for a known burst. No limit, no counters, no commands, no error handling, one thread: the
//! system calls and nothing else.

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use epoll_acceptor::Trigger;

use super::calls::{self, LISTENER};
use super::predict::BurstPredictor;
use super::{BUDGET, Engine, LONE_PERIOD};

/// A listener on an epoll, and its pass.
pub struct ByHand<P> {
    epoll: OwnedFd,
    listener: TcpListener,
    /// The mask of the `EPOLL_CTL_MOD` at the beginning of each pass, after which the pass may end at any point.
    rearms: Option<u32>,
    pass: P,
    events: Vec<libc::epoll_event>,
    taken: Vec<OwnedFd>,
}

impl<P: FnMut(&TcpListener, &mut Vec<OwnedFd>)> ByHand<P> {
    /// Allocates memory for `capacity` connections at once, here and never later.
    pub fn new(
        listener: TcpListener,
        mask: c_int,
        modifies: bool,
        capacity: usize,
        pass: P,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (epoll, mask) = (calls::epoll()?, calls::bits(mask));
        calls::control(&epoll, libc::EPOLL_CTL_ADD, &listener, mask)?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; 64];
        let rearms = modifies.then_some(mask);
        Ok(Self { epoll, listener, rearms, pass, events, taken: Vec::with_capacity(capacity) })
    }
}

/// Makes the same calls in the same order as this crate's acceptor with this trigger, for bursts of known size.
pub fn known_burst(
    listener: TcpListener,
    trigger: Trigger,
    burst: usize,
) -> ByHand<impl FnMut(&TcpListener, &mut Vec<OwnedFd>)> {
    let mask = match trigger {
        Trigger::Level => libc::EPOLLIN | libc::EPOLLRDHUP,
        Trigger::Edge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
        // The kernel refuses EPOLLRDHUP with it.
        Trigger::Exclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
    };
    let period = if burst == 1 { LONE_PERIOD } else { 1 };
    ByHand::new(listener, mask, trigger == Trigger::Edge, burst, periodic(period))
        .expect("a hand-written loop")
}

impl<P: FnMut(&TcpListener, &mut Vec<OwnedFd>)> Engine for ByHand<P> {
    fn take(&mut self, count: usize) {
        while self.taken.len() < count {
            for at in 0..calls::wait(&self.epoll, &mut self.events) {
                match self.events[at].u64 {
                    LISTENER => {
                        if let Some(mask) = self.rearms {
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

/// Accepts until EAGAIN, with the peer's address: the loop of most servers.
pub fn until_eagain(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    while let Some(stream) = calls::accept_with_peer(listener) {
        taken.push(stream);
    }
}

/// Accepts one connection per wake-up.
pub fn one(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    taken.push(calls::accept(listener));
}

/// Reads the length of the queue, and accepts that many.
pub fn depth(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    several(listener, taken, calls::queued(listener));
}

/// Predicts as this crate does whether to read the length of the queue or to accept one connection.
pub fn predicting() -> impl FnMut(&TcpListener, &mut Vec<OwnedFd>) {
    let mut predictor = BurstPredictor::default();
    move |listener, taken| {
        if predictor.counts() {
            let before = taken.len();
            depth(listener, taken);
            predictor.learn(u32::try_from(taken.len() - before).expect("no more than a queue holds"));
        } else {
            one(listener, taken);
        }
    }
}

/// One wake-up in `period` reads the length of the queue; the others accept one connection.
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
