//! Which calls a pass makes, and which of them are guessed: the rules, written down a second time.

mod asleep;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::admission::Ring;
use epoll_acceptor::drain::{Backend, Drain, Peek, Plan};
use epoll_acceptor::{Acceptor, Admission, EmptyCheck, Errno, Refusal, Trigger, Unlimited};

/// A queue, and what was asked of it.
#[derive(Default)]
struct Queue {
    waiting: AtomicU32,
    /// What every accept fails with, if it does: 0 is for "not".
    errno: AtomicI32,
    /// Milliseconds.
    now: AtomicU32,
    rings: AtomicU32,
    calls: Mutex<Vec<&'static str>>,
    /// It is a copy of another process's.
    foreign: AtomicBool,
}

struct Asked(Arc<Queue>);

impl Ring for Asked {
    fn ring(&self) {
        self.0.rings.fetch_add(1, Ordering::Relaxed);
    }
}

impl Queue {
    fn note(&self, call: &'static str) -> u32 {
        self.calls.lock().expect("not poisoned").push(call);
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Backend for Asked {
    type Stream = ();

    fn accept(&self) -> Result<(), Errno> {
        let waiting = self.0.note("accept");
        let errno = self.0.errno.load(Ordering::Relaxed);
        if errno != 0 {
            return Err(Errno::new(errno));
        }
        self.0.waiting.store(waiting.saturating_sub(1), Ordering::Relaxed);
        if waiting > 0 { Ok(()) } else { Err(Errno::new(libc::EAGAIN)) }
    }

    fn refuse(&self, (): (), _: &Refusal) {
        self.0.note("refuse");
    }

    fn depth(&self) -> Option<u32> {
        Some(self.0.note("depth"))
    }

    fn peek(&self) -> Peek {
        if self.0.note("peek") > 0 { Peek::Waiting } else { Peek::Empty }
    }

    fn age(&self, (): &()) -> Option<Duration> {
        None
    }

    fn arm(&self) -> Result<(), Errno> {
        self.0.note("arm");
        Ok(())
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.0.note("disarm");
        Ok(())
    }

    fn detach(&self) {
        self.0.note("detach");
    }

    fn announce(&self) {
        self.0.note("announce");
    }

    fn is_ours(&self) -> bool {
        !self.0.foreign.load(Ordering::Relaxed)
    }

    fn alarm(&self, after: Option<Duration>) {
        self.0.note(if after.is_some() { "alarm" } else { "no-alarm" });
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now.load(Ordering::Relaxed).into())
    }

    fn ringer(&self) -> Box<dyn Ring> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

struct Desk<A: Admission = Unlimited> {
    queue: Arc<Queue>,
    acceptor: Drain<Asked, Trigger, A>,
}

impl Desk {
    fn new(trigger: Trigger, proof: EmptyCheck, budget: u32) -> Self {
        Self::behind(Unlimited, trigger, proof, budget)
    }
}

impl<A: Admission> Desk<A> {
    fn behind(admission: A, trigger: Trigger, proof: EmptyCheck, budget: u32) -> Self {
        Self::on(Arc::default(), admission, trigger, proof, budget)
    }

    fn on(queue: Arc<Queue>, admission: A, trigger: Trigger, proof: EmptyCheck, budget: u32) -> Self {
        let plan = Plan { proof: Some(proof), ..Plan::with_budget(budget) };
        let acceptor = Drain::new(Asked(Arc::clone(&queue)), trigger, admission, plan);
        Self { queue, acceptor }
    }

    /// A pass that finds so many more than were left; its calls.
    fn pass(&mut self, more: u32) -> String {
        self.queue.waiting.fetch_add(more, Ordering::Relaxed);
        self.queue.calls.lock().expect("not poisoned").clear();
        self.acceptor.drain(drop).expect("the listener lives");
        self.queue.calls.lock().expect("not poisoned").join(" ")
    }

    /// The calls of its end.
    fn end(self) -> String {
        self.queue.calls.lock().expect("not poisoned").clear();
        drop(self.acceptor);
        self.queue.calls.lock().expect("not poisoned").join(" ")
    }
}

#[test]
fn a_pass_by_depth_counts_and_takes_what_it_counted() {
    let mut desk = Desk::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    assert_eq!(desk.pass(5), "depth accept accept accept accept accept");
    assert_eq!(desk.pass(0), "depth peek", "zero is looked at once more");
    assert_eq!(desk.pass(1), "depth accept");
}

#[test]
fn a_pass_by_peek_looks_after_each_and_first_only_in_doubt() {
    let mut desk = Desk::new(Trigger::Level, EmptyCheck::Poll, 64);
    assert_eq!(desk.pass(3), "peek accept peek accept peek accept peek", "before the first event");
    assert_eq!(desk.pass(3), "accept peek accept peek accept peek");
}

#[test]
fn a_pass_until_eagain_asks_nothing() {
    let mut desk = Desk::new(Trigger::Level, EmptyCheck::UntilEagain, 64);
    assert_eq!(desk.pass(2), "accept accept accept");
    assert_eq!(desk.pass(0), "accept peek", "an event without anybody: is the listener shut?");
}

#[test]
fn an_edge_is_settled_before_anything_is_taken() {
    for (proof, calls) in [
        (EmptyCheck::QueueLength, "arm depth accept accept"),
        (EmptyCheck::Poll, "arm accept peek accept peek"),
        (EmptyCheck::UntilEagain, "arm accept accept accept"),
    ] {
        let mut desk = Desk::new(Trigger::Edge, proof, 64);
        desk.pass(5);
        assert_eq!(desk.pass(2), calls);
    }
}

#[test]
fn an_exclusive_acceptor_pays_for_nothing_but_leaving() {
    let mut desk = Desk::new(Trigger::Exclusive, EmptyCheck::QueueLength, 64);
    assert_eq!(desk.pass(5), "depth accept accept accept accept accept");
    let control = desk.acceptor.control();
    control.pause();
    assert_eq!(desk.pass(3), "peek disarm announce");
    assert_eq!(desk.pass(0), "peek", "nobody is told twice");
    control.resume();
    assert_eq!(desk.pass(0), "arm depth accept accept accept");
    control.stop();
    assert_eq!(desk.pass(0), "detach announce");
    assert_eq!(desk.end(), "", "it has left already");
    assert_eq!(Desk::new(Trigger::Exclusive, EmptyCheck::QueueLength, 64).end(), "detach announce");
}

#[test]
fn nobody_else_announces() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        let mut desk = Desk::new(trigger, EmptyCheck::QueueLength, 64);
        desk.pass(5);
        desk.acceptor.control().pause();
        assert_eq!(desk.pass(3), "peek disarm");
        assert_eq!(desk.end(), "detach");
    }
}

#[test]
fn a_forked_childs_copy_leaves_without_a_call() {
    let mut desk = Desk::new(Trigger::Exclusive, EmptyCheck::QueueLength, 64);
    desk.queue.foreign.store(true, Ordering::Relaxed);
    desk.pass(1);
    assert_eq!(desk.end(), "");
}

#[test]
fn a_budget_ends_a_pass_without_a_further_call() {
    let mut desk = Desk::new(Trigger::Level, EmptyCheck::QueueLength, 2);
    assert_eq!(desk.pass(3), "depth accept accept");
    assert_eq!(desk.pass(0), "depth accept");
}

#[test]
fn a_pass_that_was_rung_for_in_vain_teaches_nothing() {
    let mut desk = Desk::new(Trigger::Level, EmptyCheck::Poll, 64);
    assert_eq!(desk.pass(1), "peek accept peek", "one: the next two are taken unasked");
    desk.acceptor.control().resume();
    assert_eq!(desk.pass(0), "peek");
    assert_eq!(desk.pass(1), "peek accept", "in doubt still");
    assert_eq!(desk.pass(1), "accept peek", "the third counts again");
}

#[test]
fn a_level_triggered_acceptor_counts_when_the_rule_says_so() {
    let lone = |count, then: &[u32]| [vec![1; count], then.to_vec()].concat();
    let mut bursts = vec![vec![1], vec![2], vec![3], vec![1, 2, 1, 1, 1, 1, 1, 1, 5, 40], lone(7, &[100, 0])];
    // From every doubt there is, a burst, and as many alone as it takes to forget it.
    for burst in 2..14 {
        bursts.extend([3, 20, 70].map(|count| lone(count, &[burst])));
    }
    bursts.push(lone(300, &[u32::MAX - 400]));
    for (proof, bursts) in [EmptyCheck::QueueLength, EmptyCheck::Poll]
        .into_iter()
        .flat_map(|proof| bursts.iter().map(move |b| (proof, b)))
    {
        let mut desk = Desk::new(Trigger::Level, proof, 64);
        let mut rule = Rule { sure: 0, until: 0 };
        // The first pass of all is in doubt of its event.
        for (wake, burst) in (0..400).zip(bursts.iter().cycle().copied()) {
            let waiting = desk.queue.waiting.load(Ordering::Relaxed) + burst;
            if waiting == 0 {
                continue;
            }
            let calls = desk.pass(burst);
            let expected = rule.wake(proof, waiting, wake == 0);
            assert_eq!(calls, expected, "wake {wake} of {bursts:?} by {proof:?}, {waiting} waiting");
        }
    }
}

/// When to count: a counter from -4 to 8 that bursts raise and lone connections lower; from 1 on every wake-up counts,
/// from 0 down to -4 every 1st, 3rd, 7th, 13th, 31st does.
struct Rule {
    sure: i64,
    /// Wake-ups until the next that counts.
    until: u32,
}

impl Rule {
    fn wake(&mut self, proof: EmptyCheck, waiting: u32, doubt: bool) -> String {
        if self.until > 0 {
            self.until -= 1;
            return "accept".into();
        }
        let taken = waiting.min(64);
        let (calls, found) = match proof {
            EmptyCheck::QueueLength => (format!("depth{}", " accept".repeat(taken as usize)), Some(waiting)),
            // Who looks after each knows how many there were if it came to the end.
            _ if taken < 64 => ("accept peek ".repeat(taken as usize), Some(taken)),
            _ => ("accept peek ".repeat(taken as usize - 1) + "accept", None),
        };
        if let Some(found) = found {
            self.learn(i64::from(found));
        }
        let calls = calls.trim_end().to_owned();
        if doubt && proof == EmptyCheck::Poll { format!("peek {calls}") } else { calls }
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
