//! The gate: a connection limit shared by any number of acceptors and threads.

use std::fmt;
use std::time::Duration;

use super::bell::Bell;
use super::line::WaitingLine;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::Refusal;
use super::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering, lock};

/// A limit on how many connections are in service at once, over all acceptors and threads that share it.
///
/// A `Gate` is a handle: clones are the same gate. Each acceptor reserves a place before it accepts, and the
/// [`Permit`] for it travels with the connection; dropping it, on whichever thread, gives the place back and
/// wakes the acceptors that fell asleep for want of it.
///
/// ```
/// use epoll_acceptor::Gate;
///
/// let gate = Gate::new(2);
/// let (a, b) = (gate.try_acquire(), gate.try_acquire());
/// assert!(a.is_some() && b.is_some());
/// assert!(gate.try_acquire().is_none(), "both places are taken");
/// drop(a);
/// assert_eq!(gate.in_use(), 1);
/// ```
///
/// ## Lowering the limit evicts nobody
///
/// [`set_limit`](Gate::set_limit) below the number in use only keeps newcomers out until enough have left. A
/// limit of 0 is legal: closed until raised.
///
/// ## Not in a signal handler
///
/// Dropping a permit or an acceptor, `set_limit` and `wait_idle` take a lock. Don't use them in a signal handler. The
/// commands of a `Control` take none.
///
/// ## Not across fork
///
/// The count lives in this process's memory. A forked child has a copy of its own, and what it drops is not
/// given back here. In the child of a process with several threads even that may block for ever, as with any lock
/// that another thread held: do nothing there but exec or exit.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
    when_full: WhenFull,
}

/// What becomes of new connections while a [`Gate`] is full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// They wait in the kernel's accept queue until a place is free.
    #[default]
    Pause,
    /// They are accepted and refused at once.
    Shed(Refusal),
}

/// A place behind a [`Gate`]. Given back when dropped, exactly once: a permit cannot be cloned.
///
/// ```compile_fail
/// let permit = epoll_acceptor::Gate::new(1).try_acquire().unwrap();
/// let twice = permit.clone();
/// ```
#[must_use = "a permit that is dropped gives its place back at once"]
pub struct Permit {
    gate: Arc<Inner>,
    /// Who is to be rung: a reservation that comes to nothing frees no descriptor.
    given: Until,
}

struct Inner {
    /// The whole decision in one word, so that "full" and "somebody sleeps" cannot disagree.
    ///
    /// Invariant: `WAITING` is set while the line is not empty; both change under the lock of the line only.
    word: AtomicU64,
    line: Mutex<WaitingLine>,
    idle: Condvar,
}

/// What [`Inner::word`] holds: places in use, limit, and a bit for each kind of sleeper.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Gate {
    /// The highest limit there is; a higher one is lowered to this.
    pub const LIMIT_MAX: u32 = (1 << Word::BITS) - 1;

    /// A gate for at most `limit` connections at once, which pauses its acceptors when it is full.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let inner = Inner {
            word: AtomicU64::new(Word(0).with_limit(limit).0),
            line: Mutex::new(WaitingLine::default()),
            idle: Condvar::new(),
        };
        Self { inner: Arc::new(inner), when_full: WhenFull::Pause }
    }

    /// The same gate, with this answer for connections that find it full.
    ///
    /// The answer belongs to the handle, not to the gate: one acceptor may shed where another pauses.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// How many connections may be in service at once.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.inner.load().limit()
    }

    /// Changes the limit for all handles, and wakes the acceptors that wait if there is room now.
    pub fn set_limit(&self, limit: u32) {
        let now = self.inner.update(|word| Some(word.with_limit(limit)));
        if let Some(word) = now {
            self.inner.ring_after(word, Until::Release);
        }
    }

    /// How many places are taken now. May be above the limit after it was lowered.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.inner.load().in_use()
    }

    /// Takes a place for work that is no accepted connection; `None` when the gate is full. An acceptor that is
    /// about to accept holds a place already, and gives it back if nobody comes.
    #[must_use = "a permit that is dropped gives its place back at once"]
    pub fn try_acquire(&self) -> Option<Permit> {
        self.inner.update(Word::take).map(|_| Permit { gate: Arc::clone(&self.inner), given: Until::Release })
    }

    /// Waits until every permit has been given back, at most for `timeout` (`None`: for ever). Tells whether
    /// they are.
    ///
    /// Says nothing about what comes next: close the gate (`set_limit(0)`) or stop the acceptors first.
    #[must_use = "`false` means that the time ran out first"]
    pub fn wait_idle(&self, timeout: Option<Duration>) -> bool {
        self.inner.wait_idle(timeout)
    }
}

impl Admission for Gate {
    type Permit = Permit;

    fn reserve(&self) -> Reserve<Permit> {
        match (self.try_acquire(), &self.when_full) {
            (Some(permit), _) => Reserve::Room(permit),
            (None, WhenFull::Pause) => Reserve::Full,
            (None, WhenFull::Shed(refusal)) => Reserve::Shed(refusal.clone()),
        }
    }

    fn never_waits(&self) -> bool {
        matches!(self.when_full, WhenFull::Shed(_))
    }

    fn cancel(&self, mut permit: Permit) {
        permit.given = Until::Room;
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        let mut line = lock(&self.inner.line);
        line.push(bell, until);
        let seen = self.inner.set(Word::WAITING);
        // The re-check: a place given back before the bit was set has rung nobody.
        if until == Until::Room && seen.has_room() {
            line.remove(bell);
            self.inner.settle(&line);
            return Line::Room;
        }
        Line::Standing
    }

    fn leave(&self, bell: &Arc<Bell>) {
        let mut line = lock(&self.inner.line);
        line.remove(bell);
        self.inner.settle(&line);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("in_use", &self.in_use())
            .field("limit", &self.limit())
            .field("when_full", &self.when_full)
            .finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.release(self.given);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl Inner {
    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Changes the word by `change` in one step; tells what it became, or `None` if `change` declined.
    fn update(&self, change: impl Fn(Word) -> Option<Word>) -> Option<Word> {
        let mut seen = self.load();
        loop {
            let next = change(seen)?;
            match self.word.compare_exchange_weak(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next),
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Sets a sleeper's bit and tells what the word was just then. Under the lock of the line.
    fn set(&self, bit: u64) -> Word {
        Word(self.word.fetch_or(bit, Ordering::AcqRel))
    }

    fn clear(&self, bit: u64) {
        self.word.fetch_and(!bit, Ordering::AcqRel);
    }

    fn release(&self, given: Until) {
        if let Some(word) = self.update(|word| Some(word.give())) {
            self.ring_after(word, given);
        }
    }

    /// Wakes whoever waits for what the word has just become. Rings with no lock held.
    fn ring_after(&self, word: Word, given: Until) {
        if word.has(Word::IDLING) && word.in_use() == 0 {
            let _line = lock(&self.line);
            self.clear(Word::IDLING);
            self.idle.notify_all();
        }
        if word.has(Word::WAITING) && word.has_room() {
            self.ring_all(given);
        }
    }

    /// Rings everyone who stands in line now, and nobody who comes back meanwhile. One may find its queue
    /// empty, be busy, stopped or gone: whoever is left out may be the one who could use the place.
    fn ring_all(&self, given: Until) {
        let standing = lock(&self.line).len();
        for _ in 0..standing {
            let next = {
                let mut line = lock(&self.line);
                let next = line.pop(given);
                self.settle(&line);
                next
            };
            match next {
                Some(bell) => bell.ring(),
                None => break,
            }
        }
    }

    /// Keeps the bit true to the line. Under its lock.
    fn settle(&self, line: &WaitingLine) {
        if line.len() == 0 {
            self.clear(Word::WAITING);
        }
    }

    fn wait_idle(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        let mut line = lock(&self.line);
        loop {
            if self.set(Word::IDLING).in_use() == 0 {
                return true;
            }
            line = match deadline {
                None => self.idle.wait(line).unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(std::time::Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let woken = self.idle.wait_timeout(line, left);
                    woken.unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Word {
    const BITS: u32 = 30;
    const MASK: u64 = (1 << Self::BITS) - 1;
    /// The line of acceptors is not empty.
    const WAITING: u64 = 1 << (2 * Self::BITS);
    /// Somebody waits until all permits are back.
    const IDLING: u64 = 1 << (2 * Self::BITS + 1);

    #[allow(clippy::cast_possible_truncation, reason = "masked to 30 bits")]
    const fn in_use(self) -> u32 {
        (self.0 & Self::MASK) as u32
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to 30 bits")]
    const fn limit(self) -> u32 {
        ((self.0 >> Self::BITS) & Self::MASK) as u32
    }

    fn with_limit(self, limit: u32) -> Self {
        let limit = u64::from(limit.min(Gate::LIMIT_MAX));
        Self(self.0 & !(Self::MASK << Self::BITS) | limit << Self::BITS)
    }

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    const fn has_room(self) -> bool {
        self.in_use() < self.limit()
    }

    fn take(self) -> Option<Self> {
        self.has_room().then_some(Self(self.0 + 1))
    }

    fn give(self) -> Self {
        debug_assert!(self.in_use() > 0, "a permit was given back twice");
        Self(self.0 - 1)
    }
}
