//! A gate with one switch for each published fault. Without any it is sound, and passes where the real one does.

use std::collections::VecDeque;

use epoll_acceptor::Refusal;
use epoll_acceptor::sim::{Enqueued, Notifier, Semaphore, WaitFor};
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};

use crate::scenarios::Limit;

/// What is wrong. The names in brackets are those of the bestiary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Goes to sleep without looking for room once more [S22].
    NoRecheck,
    /// Looks for room once more *before* it says that somebody waits [S15, S21].
    RecheckTooEarly,
    /// "Somebody waits" is a word of its own, written and read without order.
    TwoWords,
    /// "Full" is remembered, and written after a release has cleared it [S22].
    Latch,
    /// Wakes one of those who wait [S29].
    WakeOne,
    /// Wakes one place too late, and never with a limit of 1 [S24, M6].
    OffByOne,
    /// Wakes before the place is free [S23].
    WakesFirst,
    /// Says that nobody waits when it has woken them, and not under the lock of the line [S14].
    ClearsTooLate,
    /// A place that was reserved and not used comes back in silence [S25].
    SilentRollback,
    /// A higher limit wakes nobody [S19].
    SilentLimit,
    /// Wakes only for what its own thread gives back [S20].
    OwnThreadOnly,
    /// A place that was reserved and not used is lost [L13, M16].
    LeakyRollback,
    /// A place that was reserved and not used comes back twice [S17].
    DoubleRollback,
    /// Looks, and then takes [L11].
    CheckThenTake,
    /// Who is dropped stays in line.
    LeaveForgets,
}

pub(crate) struct Faulty {
    inner: Arc<Inner>,
}

struct Inner {
    fault: Fault,
    /// Capacity in use in the low half, the limit above, and whether somebody waits in the highest bit.
    word: AtomicU64,
    line: Mutex<VecDeque<Arc<Notifier>>>,
    waiting_apart: AtomicBool,
    latch: AtomicBool,
    home: loom::thread::ThreadId,
}

pub(crate) struct Place {
    gate: Arc<Inner>,
    counts: bool,
}

const WAITING: u64 = 1 << 63;
const ONE_LIMIT: u64 = 1 << 32;

impl Faulty {
    pub(crate) fn new(fault: Fault, limit: u32) -> Self {
        let inner = Inner {
            fault,
            word: AtomicU64::new(u64::from(limit) * ONE_LIMIT),
            line: Mutex::default(),
            waiting_apart: AtomicBool::new(false),
            latch: AtomicBool::new(false),
            home: loom::thread::current().id(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn permit(&self) -> Place {
        Place { gate: Arc::clone(&self.inner), counts: true }
    }
}

impl Semaphore for Faulty {
    type Permit = Place;

    fn sheds(&self) -> Option<&Refusal> {
        None
    }

    fn try_acquire(&self) -> Option<Place> {
        if self.inner.take() {
            return Some(self.permit());
        }
        if self.inner.fault == Fault::Latch {
            self.inner.latch.store(true, Ordering::Release);
        }
        None
    }

    fn cancel(&self, mut permit: Place) {
        match self.inner.fault {
            Fault::LeakyRollback => permit.counts = false,
            Fault::DoubleRollback => self.inner.give(),
            Fault::SilentRollback => {
                permit.counts = false;
                self.inner.word.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        }
    }

    fn enqueue(&self, notifier: &Arc<Notifier>, _: WaitFor) -> Enqueued<Place> {
        let inner = &*self.inner;
        let mut line = inner.line.lock().expect("not poisoned");
        let early = has_room(inner.word.load(Ordering::Acquire));
        line.retain(|other| !Arc::ptr_eq(other, notifier));
        line.push_back(Arc::clone(notifier));
        let seen = inner.say_that_somebody_waits();
        let room = match inner.fault {
            Fault::NoRecheck => false,
            Fault::RecheckTooEarly => early,
            Fault::Latch => !inner.latch.load(Ordering::Acquire),
            _ => has_room(seen),
        };
        if room && inner.take() {
            line.retain(|other| !Arc::ptr_eq(other, notifier));
            inner.settle(&line);
            return Enqueued::Acquired(self.permit());
        }
        Enqueued::Waiting
    }

    fn dequeue(&self, notifier: &Arc<Notifier>) -> Option<Self::Permit> {
        if self.inner.fault != Fault::LeaveForgets {
            let mut line = self.inner.line.lock().expect("not poisoned");
            line.retain(|other| !Arc::ptr_eq(other, notifier));
            self.inner.settle(&line);
        }
        None
    }
}

impl Limit for Faulty {
    fn set_limit(&self, limit: u32) {
        let inner = &*self.inner;
        let changed = inner.update(|word| {
            let kept = word & (WAITING | (ONE_LIMIT - 1));
            Some(kept | (u64::from(limit) * ONE_LIMIT))
        });
        if let Some(word) = changed.filter(|_| inner.fault != Fault::SilentLimit) {
            inner.latch.store(false, Ordering::Release);
            inner.wake_if_room(word);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low half")]
    fn in_use(&self) -> u32 {
        self.inner.word.load(Ordering::Acquire) as u32
    }
}

impl Inner {
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let next = change(seen)?;
            match self.word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
    }

    fn take(&self) -> bool {
        match self.fault {
            Fault::Latch if self.latch.load(Ordering::Acquire) => false,
            Fault::CheckThenTake => {
                let room = has_room(self.word.load(Ordering::Acquire));
                if room {
                    self.word.fetch_add(1, Ordering::AcqRel);
                }
                room
            }
            _ => self.update(|word| has_room(word).then_some(word + 1)).is_some(),
        }
    }

    fn give(&self) {
        if self.fault == Fault::WakesFirst {
            self.wake_all();
            self.word.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let word = self.word.fetch_sub(1, Ordering::AcqRel) - 1;
        self.latch.store(false, Ordering::Release);
        let muted = match self.fault {
            Fault::OwnThreadOnly => loom::thread::current().id() != self.home,
            Fault::OffByOne => !has_room(word + 1),
            _ => false,
        };
        if !muted {
            self.wake_if_room(word);
        }
    }

    fn wake_if_room(&self, word: u64) {
        let waiting = match self.fault {
            Fault::TwoWords => self.waiting_apart.load(Ordering::Acquire),
            _ => word & WAITING != 0,
        };
        if waiting && has_room(word) {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let woken: VecDeque<_> = {
            let mut line = self.line.lock().expect("not poisoned");
            let most = if self.fault == Fault::WakeOne { 1 } else { line.len() };
            let most = most.min(line.len());
            let woken = line.drain(..most).collect();
            if self.fault != Fault::ClearsTooLate {
                self.settle(&line);
            }
            woken
        };
        woken.iter().for_each(|notifier| notifier.notify());
        if self.fault == Fault::ClearsTooLate {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }

    fn say_that_somebody_waits(&self) -> u64 {
        if self.fault == Fault::TwoWords {
            self.waiting_apart.store(true, Ordering::Release);
            return self.word.load(Ordering::Acquire);
        }
        self.word.fetch_or(WAITING, Ordering::AcqRel)
    }

    /// Keeps the bit true to the line. Under its lock.
    fn settle(&self, line: &VecDeque<Arc<Notifier>>) {
        if line.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
            self.waiting_apart.store(false, Ordering::Release);
        }
    }
}

impl Clone for Faulty {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.counts {
            self.gate.give();
        }
    }
}

fn has_room(word: u64) -> bool {
    (word & (ONE_LIMIT - 1)) < (word & !WAITING) / ONE_LIMIT
}
