//! The calls that a pass makes, and those that it leaves out by prediction: the rules, written down a second time.

mod blocking;
mod counters;
mod reserving;
mod shutdown;

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::acceptor::{EmptyCheck, Intake};
use epoll_acceptor::filter::{Clock, Credentials};
use epoll_acceptor::sim::{AcceptCore, Backend, Config, Peek, Semaphore, Wake};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Acceptor, Filter, Gate, Refusal, Trigger};

/// A queue, and the calls that were made.
#[derive(Default)]
struct Queue {
    pending: AtomicU32,
    /// The errno of every accept; 0 if they succeed.
    errno: AtomicI32,
    /// Milliseconds.
    now: AtomicU32,
    /// When the alarm expires, in milliseconds; 0 if it is not set.
    alarm_at: AtomicU32,
    wakes: AtomicU32,
    /// The kernel is out of memory when the listener is armed.
    arm_fails: AtomicBool,
    calls: Mutex<Vec<&'static str>>,
    /// The listener was shut down, as a Unix one, which is reported forever.
    closed: AtomicBool,
    /// It is a copy of another process's.
    foreign: AtomicBool,
    /// A handshake that is under way may still end when the intake is closed.
    handshakes: AtomicBool,
}

/// A backend on a [`Queue`], its clock and its waker.
struct Recorder(Arc<Queue>);

impl Wake for Recorder {
    fn wake(&self) {
        self.0.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Clock for Recorder {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now.load(Ordering::Relaxed).into())
    }
}

impl Queue {
    fn note(&self, call: &'static str) -> u32 {
        self.calls.lock().expect("not poisoned").push(call);
        self.pending.load(Ordering::Relaxed)
    }

    /// Takes the calls that were made.
    fn calls(&self) -> String {
        std::mem::take(&mut *self.calls.lock().expect("not poisoned")).join(" ")
    }
}

impl Backend for Recorder {
    type Stream = ();

    fn accept(&self, peer: Option<&mut Option<SocketAddr>>) -> Result<(), Errno> {
        let pending = self.0.note(if peer.is_some() { "accept-with-peer" } else { "accept" });
        let errno = self.0.errno.load(Ordering::Relaxed);
        if errno != 0 {
            return Err(Errno::new(errno));
        }
        self.0.pending.store(pending.saturating_sub(1), Ordering::Relaxed);
        if pending > 0 { Ok(()) } else { Err(Errno::new(libc::EAGAIN)) }
    }

    fn refuse(&self, (): (), _: &Refusal) {
        self.0.note("refuse");
    }

    fn queue_length(&self) -> Option<u32> {
        Some(self.0.note("length"))
    }

    fn peek(&self) -> Peek {
        match self.0.note("peek") {
            _ if self.0.closed.load(Ordering::Relaxed) => Peek::ClosedPending,
            0 => Peek::Empty,
            _ => Peek::Pending,
        }
    }

    fn peer(&self, (): &()) -> Option<SocketAddr> {
        self.0.note("peer");
        None
    }

    fn queue_time(&self, (): &()) -> Option<Duration> {
        self.0.note("queue-time");
        None
    }

    fn credentials(&self, (): &()) -> Option<Credentials> {
        self.0.note("credentials");
        None
    }

    fn is_in_group(&self, (): &(), _: u32) -> Option<bool> {
        self.0.note("group");
        None
    }

    fn stream_fd<'a>(&self, (): &'a ()) -> Option<BorrowedFd<'a>> {
        None
    }

    fn arm(&self) -> Result<(), Errno> {
        self.0.note("arm");
        if self.0.arm_fails.load(Ordering::Relaxed) { Err(Errno::new(libc::ENOMEM)) } else { Ok(()) }
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.0.note("disarm");
        Ok(())
    }

    fn remove(&self) {
        self.0.note("remove");
    }

    fn rewake_other_epolls(&self) {
        self.0.note("rewake");
    }

    fn is_owned_by_this_process(&self) -> bool {
        !self.0.foreign.load(Ordering::Relaxed)
    }

    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        self.0.note(if after.is_some() { "alarm" } else { "no-alarm" });
        let after = after.map(|after| u32::try_from(after.as_millis().max(1)).unwrap_or(u32::MAX));
        let at = after.map_or(0, |after| self.0.now.load(Ordering::Relaxed).saturating_add(after));
        self.0.alarm_at.store(at, Ordering::Relaxed);
        Ok(())
    }

    fn is_alarm_pending(&self) -> bool {
        self.0.alarm_at.load(Ordering::Relaxed) > self.0.now.load(Ordering::Relaxed)
    }

    fn release_reserve(&self) -> bool {
        self.0.note("release-reserve");
        true
    }

    fn make_reserve(&self) -> bool {
        self.0.note("make-reserve");
        true
    }

    fn close_intake(&self) -> Intake {
        self.0.note("close-intake");
        if self.0.handshakes.load(Ordering::Relaxed) { Intake::HandshakesOnly } else { Intake::Closed }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

/// An acceptor, pass by pass, and its queue.
struct Passes<G: Semaphore = Option<Gate>, F: Filter = ()> {
    queue: Arc<Queue>,
    acceptor: AcceptCore<Recorder, G, F>,
}

impl Passes {
    fn new(trigger: Trigger, empty_check: EmptyCheck, budget: u32) -> Self {
        Self::on(Arc::default(), None, (), trigger, empty_check, budget)
    }
}

impl<G: Semaphore, F: Filter> Passes<G, F> {
    fn on(
        queue: Arc<Queue>,
        gate: G,
        filter: F,
        trigger: Trigger,
        empty_check: EmptyCheck,
        budget: u32,
    ) -> Self {
        let config = Config { empty_check: Some(empty_check), ..Config::new(trigger, budget) };
        Self::with(queue, gate, filter, config)
    }

    fn with(queue: Arc<Queue>, gate: G, filter: F, config: Config) -> Self {
        let acceptor = AcceptCore::new(Recorder(Arc::clone(&queue)), gate, filter, config);
        Self { queue, acceptor }
    }

    /// The calls of a pass that finds `more` further connections pending.
    fn pass(&mut self, more: u32) -> String {
        self.queue.pending.fetch_add(more, Ordering::Relaxed);
        self.queue.calls();
        self.acceptor.drain(drop).expect("the listener is open");
        self.queue.calls()
    }

    /// The calls of its end.
    fn end(self) -> String {
        self.queue.calls();
        drop(self.acceptor);
        self.queue.calls()
    }
}

#[test]
fn length_check_counts_once() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    assert_eq!(passes.pass(5), "length accept accept accept accept accept");
    assert_eq!(passes.pass(0), "length peek", "a length of 0 proves nothing");
    assert_eq!(passes.pass(1), "length accept");
}

#[test]
fn poll_check_looks_after_each_accept() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::Poll, 64);
    assert_eq!(passes.pass(3), "peek accept peek accept peek accept peek", "before the first event");
    assert_eq!(passes.pass(3), "accept peek accept peek accept peek");
}

#[test]
fn eagain_check_looks_at_nothing_first() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::UntilEagain, 64);
    assert_eq!(passes.pass(2), "accept accept accept");
    assert_eq!(passes.pass(0), "accept peek", "an event without a connection: is the listener closed?");
}

#[test]
fn edge_triggered_passes_arm_first() {
    for (empty_check, calls) in [
        (EmptyCheck::QueueLength, "arm length accept accept"),
        (EmptyCheck::Poll, "arm accept peek accept peek"),
        (EmptyCheck::UntilEagain, "arm accept accept accept"),
    ] {
        let mut passes = Passes::new(Trigger::Edge, empty_check, 64);
        passes.pass(5);
        assert_eq!(passes.pass(2), calls);
    }
}

#[test]
fn exclusive_acceptor_rewakes_when_it_leaves() {
    let mut passes = Passes::new(Trigger::Exclusive, EmptyCheck::QueueLength, 64);
    assert_eq!(passes.pass(5), "length accept accept accept accept accept");
    let control = passes.acceptor.control();
    let pause = control.pause();
    assert_eq!(passes.pass(3), "peek disarm rewake");
    assert_eq!(passes.pass(0), "peek", "rewoken once");
    drop(pause);
    assert_eq!(passes.pass(0), "arm length accept accept accept");
    control.stop();
    assert_eq!(passes.pass(0), "remove rewake");
    assert_eq!(passes.end(), "", "removed already");
    assert_eq!(Passes::new(Trigger::Exclusive, EmptyCheck::QueueLength, 64).end(), "remove rewake");
}

#[test]
fn other_triggers_never_rewake() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let mut passes = Passes::new(trigger, EmptyCheck::QueueLength, 64);
        passes.pass(5);
        let _pause = passes.acceptor.control().pause();
        assert_eq!(passes.pass(3), "peek disarm");
        assert_eq!(passes.end(), "remove");
    }
}

#[test]
fn forked_copy_is_dropped_without_a_call() {
    let mut passes = Passes::new(Trigger::Exclusive, EmptyCheck::QueueLength, 64);
    passes.queue.foreign.store(true, Ordering::Relaxed);
    passes.pass(1);
    assert_eq!(passes.end(), "");
}

#[test]
fn budget_ends_a_pass_without_a_call() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 2);
    assert_eq!(passes.pass(3), "length accept accept");
    assert_eq!(passes.pass(0), "length accept");
}

#[test]
fn needless_wakeup_teaches_the_predictor_nothing() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::Poll, 64);
    assert_eq!(passes.pass(1), "peek accept peek", "one: the next two are accepted without a look");
    drop(passes.acceptor.control().pause());
    assert_eq!(passes.pass(0), "peek");
    assert_eq!(passes.pass(1), "peek accept", "in doubt still");
    assert_eq!(passes.pass(1), "accept peek", "the third counts again");
}

#[test]
fn level_triggered_acceptor_counts_by_the_rule() {
    let lone = |count, then: &[u32]| [vec![1; count], then.to_vec()].concat();
    let mut bursts = vec![vec![1], vec![2], vec![3], vec![1, 2, 1, 1, 1, 1, 1, 1, 5, 40], lone(7, &[100, 0])];
    // From every state of the predictor, a burst, and enough lone connections to forget it.
    for burst in 2..14 {
        bursts.extend([3, 20, 70].map(|count| lone(count, &[burst])));
    }
    bursts.push(lone(300, &[u32::MAX - 400]));
    for (empty_check, bursts) in [EmptyCheck::QueueLength, EmptyCheck::Poll]
        .into_iter()
        .flat_map(|empty_check| bursts.iter().map(move |b| (empty_check, b)))
    {
        let mut passes = Passes::new(Trigger::Level, empty_check, 64);
        let mut rule = Rule { sure: 0, until: 0 };
        // The first pass is in doubt of its event.
        for (wake, burst) in (0..400).zip(bursts.iter().cycle().copied()) {
            let pending = passes.queue.pending.load(Ordering::Relaxed) + burst;
            if pending == 0 {
                continue;
            }
            let calls = passes.pass(burst);
            let expected = rule.wake(empty_check, pending, wake == 0);
            assert_eq!(calls, expected, "wake {wake} of {bursts:?} by {empty_check:?}, {pending} pending");
        }
    }
}

/// When to count: a counter from -4 to 8 that bursts raise and lone connections lower; from 1 on every wakeup counts,
/// from 0 down to -4 every 1st, 3rd, 7th, 13th, 31st does.
struct Rule {
    sure: i64,
    /// Wakeups until the next that counts.
    until: u32,
}

impl Rule {
    fn wake(&mut self, empty_check: EmptyCheck, pending: u32, doubt: bool) -> String {
        if self.until > 0 {
            self.until -= 1;
            return "accept".into();
        }
        let taken = pending.min(64);
        let (calls, found) = match empty_check {
            EmptyCheck::QueueLength => (format!("length{}", " accept".repeat(taken as usize)), Some(pending)),
            // A pass that looks after each knows how many there were if it came to the end.
            _ if taken < 64 => ("accept peek ".repeat(taken as usize), Some(taken)),
            _ => ("accept peek ".repeat(taken as usize - 1) + "accept", None),
        };
        if let Some(found) = found {
            self.learn(i64::from(found));
        }
        let calls = calls.trim_end().to_owned();
        if doubt && empty_check == EmptyCheck::Poll { format!("peek {calls}") } else { calls }
    }

    fn learn(&mut self, found: i64) {
        let change = match found {
            1 => -1,
            many if many > 2 => many - 2,
            _ => 0,
        };
        self.sure = (self.sure + change).clamp(-4, 8);
        self.until = match self.sure {
            0 => 0,
            -1 => 2,
            -2 => 6,
            -3 => 12,
            -4 => 30,
            _ => 0,
        };
    }
}
