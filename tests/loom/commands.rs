//! Pause, resume and stop: the notifier, and two ways to get it wrong.

use epoll_acceptor::sim::{Notifier, Wake};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::owner::{EventFd, Pull};
use crate::scenarios::join;

/// What others ask of an owner.
pub(crate) trait Commands: 'static {
    fn new(waker: Pull) -> Self;
    fn resume(&self);
    fn pause(&self);
    fn stop(&self);
    /// Whether to pause and whether to stop, as the pass sees it that follows the wakeup.
    fn answer(&self) -> (bool, bool);
}

impl Commands for Notifier {
    fn new(waker: Pull) -> Self {
        Self::new(Box::new(waker))
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
        let requests = self.take();
        (requests.paused(), requests.stop())
    }
}

/// Reads, changes and writes back: a stop between is lost, and a stopped listener comes back [F10].
pub(crate) struct ReadThenWrite(AtomicU32, Pull);

/// Wakes, and then says what for [S21].
pub(crate) struct WakesFirst(AtomicU32, Pull);

const PAUSE: u32 = 1;
const STOP: u32 = 2;

impl ReadThenWrite {
    fn change(&self, change: impl Fn(u32) -> u32) {
        self.0.store(change(self.0.load(Ordering::Acquire)), Ordering::Release);
        self.1.wake();
    }
}

impl Commands for ReadThenWrite {
    fn new(waker: Pull) -> Self {
        Self(AtomicU32::new(0), waker)
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

impl Commands for WakesFirst {
    fn new(waker: Pull) -> Self {
        Self(AtomicU32::new(0), waker)
    }

    fn resume(&self) {
        self.1.wake();
        self.0.fetch_and(!PAUSE, Ordering::AcqRel);
    }

    fn pause(&self) {
        self.1.wake();
        self.0.fetch_or(PAUSE, Ordering::AcqRel);
    }

    fn stop(&self) {
        self.1.wake();
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
    let eventfd = Arc::new(EventFd::default());
    let commands = Arc::new(C::new(Pull(Arc::clone(&eventfd))));
    commands.pause();
    let others: [fn(&C); 2] = [C::stop, C::resume];
    let others = others.map(|command| {
        let commands = Arc::clone(&commands);
        thread::spawn(move || command(&commands))
    });
    while !commands.answer().1 {
        eventfd.wait();
    }
    others.into_iter().for_each(join);
    assert_eq!(commands.answer(), (false, true), "P9: stop beats resume");
}

/// Two threads pause and resume, and one ends the first pause too: no pause is left, and the owner learns of it.
pub(crate) fn pauses_that_overlap<C: Commands>() {
    let eventfd = Arc::new(EventFd::default());
    let commands = Arc::new(C::new(Pull(Arc::clone(&eventfd))));
    commands.pause();
    let others = [true, false].map(|ends_the_first| {
        let commands = Arc::clone(&commands);
        thread::spawn(move || {
            commands.pause();
            commands.resume();
            if ends_the_first {
                commands.resume();
            }
        })
    });
    while commands.answer().0 {
        eventfd.wait();
    }
    others.into_iter().for_each(join);
    assert_eq!(commands.answer(), (false, false), "P9: the last word is resume");
}
