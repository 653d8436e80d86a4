//! The gate: a connection limit shared by any number of acceptors and threads.

use std::fmt;
use std::time::Duration;

use super::bell::Bell;
use super::line::WaitingLine;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::{Cause, Refusal, Rejection};
use super::sync::{Arc, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, lock};
use super::word::{Rules, Word};

/// A limit on how many connections are in service at once, over all acceptors and threads that share it.
///
/// A `Gate` is a handle: clones are the same gate. Each acceptor reserves a place before it accepts, and the
/// [`Permit`] for it travels with the connection; dropping it, on whichever thread, gives the place back.
///
/// Acceptors that fall asleep for want of a place stand in line, and a place that comes back is handed to the first of
/// them: none that is awake takes it before. So of `n` acceptors each gets one of the next `n` places that come back
/// while it waits, however busy the others are. One that has no use for the place any more hands it on.
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
/// At the end of a service nobody is let in any more, and whoever is in service may finish:
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::Gate;
///
/// let gate = Gate::new(10);
/// let last = gate.try_acquire().unwrap();
/// let thread = std::thread::spawn(move || drop(last));
/// gate.set_limit(0);
/// assert!(gate.wait_idle(Some(Duration::from_secs(5))), "all are through");
/// assert!(gate.try_acquire().is_none());
/// # thread.join().unwrap();
/// ```
///
/// ## Prompt owners
///
/// A place that was handed over is taken until the acceptor's next pass, which uses it or hands it on. An owner that
/// does not answer its events for long keeps that one place from the others for as long; an acceptor that is forgotten
/// (`std::mem::forget`) instead of dropped, for ever.
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
    privileged: bool,
}

/// What becomes of new connections while a [`Gate`] is full.
///
/// ```
/// use epoll_acceptor::{Gate, Refusal, WhenFull};
///
/// let patient = Gate::new(10_000);
/// let shedding = patient.clone().when_full(WhenFull::Shed(Refusal::message("503 try elsewhere\n")));
/// let place = patient.try_acquire();
/// assert_eq!(shedding.in_use(), 1, "one gate; the answer is each handle's own");
/// # drop(place);
/// ```
///
/// Which one to take: [wait or refuse](crate::guide::overload#wait-or-refuse).
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
    /// `None` once its place has been given back.
    gate: Option<Arc<Inner>>,
}

struct Inner {
    /// The whole decision in one word, so that "full" and "somebody sleeps" cannot disagree.
    ///
    /// Invariant: `WAITING` is set while anybody waits in line; both change under the lock of the line only. While
    /// it is set nobody who waits for room could have it, so whoever is awake finds none either; but for those who have
    /// been told to pause or to stop, who are passed over and look anew when they are rung for that.
    word: AtomicU64,
    line: Mutex<WaitingLine>,
    idle: Condvar,
    /// How many places have to be free before a gate that was full opens again; 0 and 1 are the same.
    low_water: AtomicU32,
    /// Capacity that only privileged handles may take.
    reserved: AtomicU32,
}

impl Gate {
    /// The highest limit there is, 2^30 - 1; a higher one is lowered to this.
    pub const LIMIT_MAX: u32 = Word::LIMIT_MAX;

    /// A gate for at most `limit` connections at once, which pauses its acceptors when it is full.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let inner = Inner {
            word: AtomicU64::new(Word(0).with_limit(limit).0),
            line: Mutex::new(WaitingLine::default()),
            idle: Condvar::new(),
            low_water: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
        };
        Self { inner: Arc::new(inner), when_full: WhenFull::Pause, privileged: false }
    }

    /// The same gate, with this answer for connections that find it full.
    ///
    /// The answer belongs to the handle, not to the gate: one acceptor may shed where another pauses.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// The same gate, which once full opens again only when `free` places are free, for all handles.
    ///
    /// Without this low-water mark an acceptor at the limit wakes for every place that comes back, to take one
    /// connection. With it, it sleeps until it can take a batch. A place that was reserved and not used, because nobody
    /// came or whoever came was not admitted, opens a gate again that it had closed. The mark lies below the limit as
    /// it is now; with a limit lower than `free` the gate opens when it is empty.
    ///
    /// ```
    /// use epoll_acceptor::Gate;
    ///
    /// let gate = Gate::new(2).low_water(2);
    /// let (one, two) = (gate.try_acquire(), gate.try_acquire());
    /// drop(one);
    /// assert!(gate.try_acquire().is_none(), "one place is free, two have to be");
    /// drop(two);
    /// assert!(gate.try_acquire().is_some());
    /// ```
    #[must_use]
    pub fn low_water(self, free: u32) -> Self {
        self.inner.low_water.store(free, Ordering::Relaxed);
        self.inner.change(Until::Room, Word::with_rules);
        self
    }

    /// The same gate, with so many of its places kept for [`privileged`](Self::privileged) handles.
    ///
    /// ## Those who are privileged go first
    ///
    /// They may take every place, reserved or not, and others have what is left above the reserved ones. While they are more
    /// than are reserved, they may leave nothing. Behind a privileged listener stand clients that are few.
    #[must_use]
    pub fn reserved(self, places: u32) -> Self {
        self.inner.reserved.store(places, Ordering::Relaxed);
        self.inner.change(Until::Room, Word::with_rules);
        self
    }

    /// The same gate, whose [`reserved`](Self::reserved) places this handle may take: for the listener of an
    /// administrator, who has to come in when everything else is full.
    ///
    /// ```
    /// use epoll_acceptor::Gate;
    ///
    /// let public = Gate::new(100).reserved(2);
    /// let admin = public.clone().privileged();
    /// let everyone: Vec<_> = std::iter::from_fn(|| public.try_acquire()).collect();
    /// assert_eq!(everyone.len(), 98);
    /// assert!(admin.try_acquire().is_some());
    /// ```
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// How many connections may be in service at once.
    #[must_use]
    #[inline]
    pub fn limit(&self) -> u32 {
        self.inner.load().limit()
    }

    /// Changes the limit for all handles, and wakes the acceptors that wait if there is room now.
    pub fn set_limit(&self, limit: u32) {
        self.inner.change(Until::Release, |word| word.with_limit(limit));
    }

    /// How many places are taken now. May be above the limit after it was lowered.
    #[must_use]
    #[inline]
    pub fn in_use(&self) -> u32 {
        self.inner.load().in_use()
    }

    /// Takes a place for work that is no accepted connection; `None` when the gate is full. An acceptor that is
    /// about to accept holds a place already, and gives it back if nobody comes.
    #[must_use = "a permit that is dropped gives its place back at once"]
    #[inline]
    pub fn try_acquire(&self) -> Option<Permit> {
        if self.inner.takes_plainly() || self.takes_by_the_rules() { Some(self.permit()) } else { None }
    }

    /// Waits until every permit has been given back, at most for `timeout` (`None`: for ever). Tells whether
    /// they are.
    ///
    /// Says nothing about what comes next: close the gate (`set_limit(0)`) or stop the acceptors first. A place that was handed
    /// to an acceptor in line and not fetched yet is waited for, unless one of these has been done by then.
    #[must_use = "`false` means that the time ran out first"]
    pub fn wait_idle(&self, timeout: Option<Duration>) -> bool {
        self.inner.wait_idle(timeout)
    }

    /// For who is privileged, or finds no room at first sight.
    #[cold]
    fn takes_by_the_rules(&self) -> bool {
        let rules = self.inner.rules();
        self.inner.update(|word| word.take(rules, self.privileged)).is_some()
    }

    #[cold]
    fn full(&self) -> Reserve<Permit> {
        match &self.when_full {
            WhenFull::Pause => Reserve::Full,
            WhenFull::Shed(refusal) => Reserve::Shed(Rejection::new(Cause::Full, refusal.clone())),
        }
    }

    /// The permit of a place that is counted already.
    #[inline]
    fn permit(&self) -> Permit {
        Permit { gate: Some(Arc::clone(&self.inner)) }
    }
}

impl Admission for Gate {
    type Permit = Permit;

    #[inline]
    fn reserve(&self) -> Reserve<Permit> {
        match self.try_acquire() {
            Some(permit) => Reserve::Room(permit),
            None => self.full(),
        }
    }

    #[inline]
    fn never_waits(&self) -> bool {
        matches!(self.when_full, WhenFull::Shed(_))
    }

    fn cancel(&self, mut permit: Permit) {
        if let Some(gate) = permit.gate.take() {
            gate.release(Until::Room, if self.privileged { Word::give } else { Word::give_unused });
        }
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        let mut line = lock(&self.inner.line);
        if line.has_place(bell) {
            return Line::Turn;
        }
        line.push(bell, until, self.privileged);
        let seen = self.inner.set(Word::WAITING);
        // The re-check: a place given back before the bit was set has been handed to nobody.
        if until == Until::Room && seen.has_room(self.inner.rules(), self.privileged) {
            line.remove(bell);
            self.inner.settle(&line);
            return Line::Room;
        }
        Line::Standing
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Permit> {
        let mut line = lock(&self.inner.line);
        let has_place = line.remove(bell);
        self.inner.settle(&line);
        has_place.then(|| self.permit())
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
        if let Some(gate) = &self.gate {
            gate.release(Until::Release, Word::give);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl Inner {
    #[inline]
    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Changes the word by `change` in one step; tells what it became, or `None` if `change` declined.
    #[inline]
    fn update(&self, mut change: impl FnMut(Word) -> Option<Word>) -> Option<Word> {
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

    /// Takes a place, if there is one and nothing but the limit to look at.
    #[inline]
    fn takes_plainly(&self) -> bool {
        self.update(|word| {
            (!word.has(Word::RULED) && word.in_use() < word.limit()).then_some(Word(word.0 + 1))
        })
        .is_some()
    }

    fn rules(&self) -> Rules {
        Rules {
            low_water: self.low_water.load(Ordering::Relaxed),
            reserved: self.reserved.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn release(&self, given: Until, give: fn(Word) -> Word) {
        if self.update(|word| (!word.concerns_others()).then(|| word.give())).is_none() {
            self.change(given, give);
        }
    }

    /// Changes the word, and hands the room that makes to those in line, all in one step: who is awake cannot come
    /// between.
    #[cold]
    fn change(&self, given: Until, change: impl Fn(Word) -> Word) {
        let mut called = {
            let mut line = lock(&self.line);
            line.look_at_commands();
            let rules = self.rules();
            let mut changed = Word(0);
            let now = self.update(|word| {
                changed = change(word).latched(rules);
                let mut left = changed;
                line.ask(|privileged| left.take_from(rules, privileged));
                Some(left)
            });
            line.hand_over(|privileged| changed.take_from(rules, privileged));
            let now = self.keeps_no_more_than_the_limit(&mut line, now);
            if given == Until::Release {
                line.call_hopeful();
            }
            self.settle(&line);
            self.look_for_idleness(now);
            line.next_call()
        };
        while let Some(bell) = called {
            bell.ring();
            called = lock(&self.line).next_call();
        }
    }

    /// Takes back what was handed over and not fetched, as far as the limit was lowered since. What the word is then.
    fn keeps_no_more_than_the_limit(&self, line: &mut WaitingLine, now: Option<Word>) -> Option<Word> {
        let mut now = now;
        while now.is_some_and(|word| word.in_use() > word.limit()) && line.take_back(false) {
            now = self.update(|word| Some(Word(word.give().0 | Word::WAITING)));
        }
        now
    }

    /// Hands on what is kept for those who were told to pause or to stop, and may not come any more.
    fn takes_back_from_those_excused(&self) {
        let kept = || {
            let mut line = lock(&self.line);
            line.look_at_commands();
            let kept = line.take_back(true);
            if kept {
                self.set(Word::WAITING);
            }
            kept
        };
        while kept() {
            self.change(Until::Room, Word::give);
        }
    }

    /// Wakes those who wait until all have left, if that is what the word has become. Under the lock of the line.
    fn look_for_idleness(&self, now: Option<Word>) {
        if now.is_some_and(|word| word.has(Word::IDLING) && word.in_use() == 0) {
            self.clear(Word::IDLING);
            self.idle.notify_all();
        }
    }

    /// Keeps the bit true to the line. Under its lock.
    fn settle(&self, line: &WaitingLine) {
        if !line.waits() {
            self.clear(Word::WAITING);
        }
    }

    fn wait_idle(&self, timeout: Option<Duration>) -> bool {
        self.takes_back_from_those_excused();
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
