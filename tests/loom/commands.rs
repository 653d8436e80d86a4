//! Pause, resume and stop: the notifier, and three faulty ones.

use epoll_acceptor::sim::{Notifier, Wake as _};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::owner::{EventFd, EventFdWaker};
use crate::scenarios::join;

/// The commands of other threads to an owner.
pub(crate) trait Commands: 'static {
    fn new(waker: EventFdWaker) -> Self;
    fn pause(&self);
    fn resume(&self);
    fn stop(&self);
    /// Returns whether to pause and whether to stop, as the pass sees it that answers the wakeup.
    fn take(&self) -> (bool, bool);
}

impl Commands for Notifier {
    fn new(waker: EventFdWaker) -> Self {
        Self::new(Box::new(waker))
    }

    fn pause(&self) {
        Self::pause(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn take(&self) -> (bool, bool) {
        let requests = Self::take(self);
        (requests.paused(), requests.stop())
    }
}

/// Reads, changes and writes back: a stop in between is lost, and a stopped listener listens again [F10].
pub(crate) struct ReadThenWrite(AtomicU32, EventFdWaker);

/// Wakes the owner before it sets the request [S21].
pub(crate) struct WakesFirst(AtomicU32, EventFdWaker);

/// Has one flag for all pauses: one thread ends the pause of another.
pub(crate) struct OneFlag(AtomicU32, EventFdWaker);

const STOP: u32 = 1;
const PAUSE: u32 = 2;

impl ReadThenWrite {
    fn change(&self, change: impl Fn(u32) -> u32) {
        self.0.store(change(self.0.load(Ordering::Acquire)), Ordering::Release);
        self.1.wake();
    }
}

impl Commands for ReadThenWrite {
    fn new(waker: EventFdWaker) -> Self {
        Self(AtomicU32::new(0), waker)
    }

    fn pause(&self) {
        self.change(|bits| bits + PAUSE);
    }

    fn resume(&self) {
        self.change(|bits| bits - PAUSE);
    }

    fn stop(&self) {
        self.change(|bits| bits | STOP);
    }

    fn take(&self) -> (bool, bool) {
        decode(&self.0)
    }
}

impl Commands for WakesFirst {
    fn new(waker: EventFdWaker) -> Self {
        Self(AtomicU32::new(0), waker)
    }

    fn pause(&self) {
        self.1.wake();
        self.0.fetch_add(PAUSE, Ordering::AcqRel);
    }

    fn resume(&self) {
        self.1.wake();
        self.0.fetch_sub(PAUSE, Ordering::AcqRel);
    }

    fn stop(&self) {
        self.1.wake();
        self.0.fetch_or(STOP, Ordering::AcqRel);
    }

    fn take(&self) -> (bool, bool) {
        decode(&self.0)
    }
}

impl Commands for OneFlag {
    fn new(waker: EventFdWaker) -> Self {
        Self(AtomicU32::new(0), waker)
    }

    fn pause(&self) {
        self.0.fetch_or(PAUSE, Ordering::AcqRel);
        self.1.wake();
    }

    fn resume(&self) {
        self.0.fetch_and(!PAUSE, Ordering::AcqRel);
        self.1.wake();
    }

    fn stop(&self) {
        self.0.fetch_or(STOP, Ordering::AcqRel);
        self.1.wake();
    }

    fn take(&self) -> (bool, bool) {
        decode(&self.0)
    }
}

fn decode(bits: &AtomicU32) -> (bool, bool) {
    let bits = bits.load(Ordering::Acquire);
    (bits >= PAUSE, bits & STOP != 0)
}

/// Two threads stop and resume a paused owner that sleeps: it sees the stop, and stays stopped.
pub(crate) fn stop_against_resume<C: Commands>() {
    let eventfd = Arc::new(EventFd::default());
    let commands = Arc::new(C::new(EventFdWaker(Arc::clone(&eventfd))));
    commands.pause();
    let others: [fn(&C); 2] = [C::stop, C::resume];
    let others = others.map(|command| {
        let commands = Arc::clone(&commands);
        thread::spawn(move || command(&commands))
    });
    while !commands.take().1 {
        eventfd.wait();
    }
    others.into_iter().for_each(join);
    assert_eq!(commands.take(), (false, true), "P9: stop beats resume");
}

/// Pauses of three threads overlap: the owner is paused while one of them holds, and learns of the last one's end.
pub(crate) fn overlapping_pauses<C: Commands>() {
    let eventfd = Arc::new(EventFd::default());
    let commands = Arc::new(C::new(EventFdWaker(Arc::clone(&eventfd))));
    commands.pause();
    let others = [(); 2].map(|()| {
        let commands = Arc::clone(&commands);
        thread::spawn(move || {
            commands.pause();
            assert!(commands.take().0, "P9: a pause holds");
            commands.resume();
        })
    });
    commands.resume();
    while commands.take().0 {
        eventfd.wait();
    }
    others.into_iter().for_each(join);
    assert_eq!(commands.take(), (false, false), "P9: no pause holds");
}
