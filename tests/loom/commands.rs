//! Pause, resume and stop: the bell, and two ways to get it wrong.

use epoll_acceptor::admission::Bell;
use epoll_acceptor::admission::Ring;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::owner::{EventFd, Pull};
use crate::scenarios::join;

/// What others ask of an owner.
pub(crate) trait Commands: 'static {
    fn new(ring: Pull) -> Self;
    fn resume(&self);
    fn pause(&self);
    fn stop(&self);
    /// Whether to pause and whether to stop, as the pass sees it that answers the ring.
    fn answer(&self) -> (bool, bool);
}

impl Commands for Bell {
    fn new(ring: Pull) -> Self {
        Self::new(Box::new(ring))
    }

    fn resume(&self) {
        Self::resume(self);
    }

    fn pause(&self) {
        Self::pause(self);
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn answer(&self) -> (bool, bool) {
        let wishes = Self::answer(self);
        (wishes.pause, wishes.stop)
    }
}

/// Reads, changes and writes back: a stop between is lost, and a stopped listener comes back [F10].
pub(crate) struct ReadThenWrite(AtomicU32, Pull);

/// Rings, and then says what for [S21].
pub(crate) struct RingsFirst(AtomicU32, Pull);

const PAUSE: u32 = 1;
const STOP: u32 = 2;

impl ReadThenWrite {
    fn change(&self, change: impl Fn(u32) -> u32) {
        self.0.store(change(self.0.load(Ordering::Acquire)), Ordering::Release);
        self.1.ring();
    }
}

impl Commands for ReadThenWrite {
    fn new(ring: Pull) -> Self {
        Self(AtomicU32::new(0), ring)
    }

    fn resume(&self) {
        self.change(|bits| bits & !PAUSE);
    }

    fn pause(&self) {
        self.change(|bits| bits | PAUSE);
    }

    fn stop(&self) {
        self.change(|bits| bits | STOP);
    }

    fn answer(&self) -> (bool, bool) {
        decode(self.0.load(Ordering::Acquire))
    }
}

impl Commands for RingsFirst {
    fn new(ring: Pull) -> Self {
        Self(AtomicU32::new(0), ring)
    }

    fn resume(&self) {
        self.1.ring();
        self.0.fetch_and(!PAUSE, Ordering::AcqRel);
    }

    fn pause(&self) {
        self.1.ring();
        self.0.fetch_or(PAUSE, Ordering::AcqRel);
    }

    fn stop(&self) {
        self.1.ring();
        self.0.fetch_or(STOP, Ordering::AcqRel);
    }

    fn answer(&self) -> (bool, bool) {
        decode(self.0.load(Ordering::Acquire))
    }
}

fn decode(bits: u32) -> (bool, bool) {
    (bits & PAUSE != 0, bits & STOP != 0)
}

/// Stop and resume from two threads, to an owner that sleeps paused: it learns of the stop, and it stays stopped.
pub(crate) fn stop_against_resume<C: Commands>() {
    let ring = Arc::new(EventFd::default());
    let commands = Arc::new(C::new(Pull(Arc::clone(&ring))));
    commands.pause();
    let others: [fn(&C); 2] = [C::stop, C::resume];
    let others = others.map(|command| {
        let commands = Arc::clone(&commands);
        thread::spawn(move || command(&commands))
    });
    while !commands.answer().1 {
        ring.wait();
    }
    others.into_iter().for_each(join);
    assert_eq!(commands.answer(), (false, true), "P9: stop beats resume");
}

/// Two threads pause and resume; whoever comes last resumes, and the owner learns of it.
pub(crate) fn pauses_that_overlap<C: Commands>() {
    let ring = Arc::new(EventFd::default());
    let commands = Arc::new(C::new(Pull(Arc::clone(&ring))));
    commands.pause();
    let others = [(); 2].map(|()| {
        let commands = Arc::clone(&commands);
        thread::spawn(move || {
            commands.pause();
            commands.resume();
        })
    });
    while commands.answer().0 {
        ring.wait();
    }
    others.into_iter().for_each(join);
    assert_eq!(commands.answer(), (false, false), "P9: the last word is resume");
}
