//! Which calls falling asleep and waking up make, and which state they leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use epoll_acceptor::admission::Bell;
use epoll_acceptor::{
    Acceptor, Admission, EmptyCheck, Errno, Gate, Line, Refusal, Reserve, State, Trigger, Until,
};

use crate::{Desk, Queue};

fn desk() -> Desk {
    Desk::new(Trigger::Level, EmptyCheck::Poll, 64)
}

impl<A: Admission> Desk<A> {
    /// From now on every accept fails so; 0 is for "not".
    fn fail(&self, errno: i32) {
        self.queue.errno.store(errno, Ordering::Relaxed);
    }

    fn wait(&self, milliseconds: u32) {
        self.queue.now.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

#[test]
fn a_paused_acceptor_falls_silent_whether_or_not_anyone_waits() {
    for waiting in [0, 2] {
        let mut desk = desk();
        desk.acceptor.control().pause();
        assert_eq!(desk.pass(waiting), "peek disarm");
        assert_eq!(desk.acceptor.state(), State::Paused, "P9");
        assert_eq!(desk.pass(0), "peek", "a needless pass");
        assert_eq!(desk.acceptor.counters().pauses, 1, "P9: it was paused once");
        desk.acceptor.control().resume();
        assert!(desk.pass(1).starts_with("arm peek accept"));
        assert_eq!(desk.acceptor.state(), State::Listening, "P9");
    }
}

#[test]
fn a_full_acceptor_falls_silent_only_if_anyone_waits() {
    let gate = Gate::new(1);
    let mut desk = Desk::behind(gate.clone(), Trigger::Level, EmptyCheck::Poll, 64);
    let permit = gate.try_acquire();
    for found in ["before the first event", "for whom the event came, has gone"] {
        assert_eq!(desk.pass(0), "peek", "nobody: {found}");
        assert_eq!(desk.acceptor.state(), State::Listening);
    }
    assert_eq!(desk.pass(1), "peek disarm");
    assert_eq!((desk.acceptor.state(), desk.acceptor.counters().full), (State::Full, 1));
    drop(permit);
    assert_eq!(desk.pass(0), "arm peek accept peek");
    assert_eq!(desk.acceptor.state(), State::Listening);
}

#[test]
fn out_of_descriptors_it_falls_silent_and_sets_its_alarm() {
    let mut desk = desk();
    desk.fail(libc::EMFILE);
    assert_eq!(desk.pass(1), "peek accept peek disarm alarm");
    assert_eq!(desk.acceptor.state(), State::Exhausted);
    desk.wait(9);
    assert_eq!(
        desk.pass(0),
        "alarm peek",
        "P2: a needless pass sets the alarm again, which its event used up"
    );
    desk.wait(1);
    assert_eq!(desk.pass(0), "arm no-alarm peek accept peek disarm alarm", "P11: it tries again");
    desk.fail(0);
    desk.wait(19);
    assert_eq!(desk.pass(0), "alarm peek", "P2: the second back-off is longer");
    desk.wait(1);
    assert_eq!(desk.pass(0), "arm no-alarm peek accept peek");
    assert_eq!((desk.acceptor.state(), desk.acceptor.counters().exhausted), (State::Listening, 2));
}

#[test]
fn out_of_descriptors_with_nobody_queued_it_sleeps_on() {
    let mut desk = desk();
    desk.fail(libc::EMFILE);
    desk.pass(1);
    desk.queue.waiting.store(0, Ordering::Relaxed);
    assert_eq!(desk.pass(0), "alarm peek");
    assert_eq!(desk.acceptor.state(), State::Exhausted, "its alarm will wake it");
    desk.wait(10);
    assert_eq!(desk.pass(0), "arm no-alarm peek");
    assert_eq!(desk.acceptor.state(), State::Listening);
}

/// A gate may count work that holds no descriptor, too.
#[test]
fn what_is_given_back_to_no_use_is_not_hoped_for_again_at_once() {
    let gate = Gate::new(100);
    let mut desk = Desk::behind(gate.clone(), Trigger::Level, EmptyCheck::Poll, 64);
    let rings = |desk: &Desk<Gate>| desk.queue.rings.swap(0, Ordering::Relaxed);
    let give_back = || drop(gate.try_acquire());
    desk.fail(libc::EMFILE);
    desk.pass(1);
    for round in 0..3 {
        give_back();
        assert_eq!(rings(&desk), 1, "P11: it hopes for a descriptor, round {round}");
        assert_eq!(desk.pass(0), "arm no-alarm peek accept peek disarm alarm");
        (0..100).for_each(|_| give_back());
        assert_eq!(rings(&desk), 0, "P2: that was of no use, a moment ago");
        desk.wait(4);
        assert_eq!(desk.pass(0), "alarm peek", "P2");
        desk.wait(1);
        assert_eq!(desk.pass(0), "arm no-alarm peek accept peek disarm alarm", "P11: a moment later");
    }
    assert_eq!(desk.acceptor.counters().exhausted, 7);
    desk.fail(0);
    give_back();
    assert_eq!((rings(&desk), desk.pass(0).as_str()), (1, "arm no-alarm peek accept peek"));
    // After a success everything is as at first.
    desk.fail(libc::EMFILE);
    desk.pass(1);
    give_back();
    assert_eq!(rings(&desk), 1, "P11");
}

/// As a filter of system calls may have it.
#[test]
fn a_queue_that_says_that_somebody_waits_and_gives_nobody_is_a_shortage() {
    let mut desk = desk();
    desk.fail(libc::EAGAIN);
    let tries = (0..1000).take_while(|nth| {
        desk.pass(u32::from(*nth == 0));
        desk.acceptor.state() == State::Listening
    });
    assert_eq!(tries.count(), 64, "P2");
    assert_eq!(desk.acceptor.state(), State::Exhausted);
    desk.fail(0);
    desk.wait(10);
    assert_eq!(desk.pass(0), "arm no-alarm peek accept peek", "P11");
}

#[test]
fn awake_it_stands_in_no_line() {
    let gate = Gate::new(2);
    for asleep in [State::Exhausted, State::Full] {
        let mut desk = Desk::behind(gate.clone(), Trigger::Level, EmptyCheck::Poll, 64);
        let rings = |desk: &Desk<Gate>| desk.queue.rings.swap(0, Ordering::Relaxed);
        let permit = gate.try_acquire();
        if asleep == State::Exhausted {
            desk.fail(libc::EMFILE);
        } else {
            gate.set_limit(1);
        }
        desk.pass(1);
        assert_eq!(desk.acceptor.state(), asleep);
        desk.fail(0);
        drop(permit);
        assert_eq!(rings(&desk), 1, "P11: in line, {asleep}");
        desk.fail(if asleep == State::Exhausted { libc::EMFILE } else { 0 });
        desk.pass(0);
        desk.fail(0);
        desk.wait(1000);
        desk.pass(1);
        assert_eq!((desk.acceptor.state(), rings(&desk)), (State::Listening, 0));
        drop(gate.try_acquire());
        assert_eq!(rings(&desk), 0, "P2: awake, {asleep} no more");
        gate.set_limit(2);
    }
}

#[test]
fn dropped_it_stands_in_no_line() {
    let gate = Gate::new(1);
    let mut desk = Desk::behind(gate.clone(), Trigger::Level, EmptyCheck::Poll, 64);
    let permit = gate.try_acquire();
    desk.pass(1);
    assert_eq!(desk.acceptor.state(), State::Full);
    let Desk { queue, acceptor } = desk;
    drop(acceptor);
    drop(permit);
    assert_eq!(
        (queue.rings.load(Ordering::Relaxed), Arc::strong_count(&queue)),
        (0, 1),
        "rung and kept for nobody"
    );
}

#[test]
fn after_sixty_four_attempts_in_vain_it_backs_off_as_if_out_of_descriptors() {
    for errno in [libc::EINTR, libc::ECONNABORTED] {
        let mut desk = Desk::new(Trigger::Level, EmptyCheck::UntilEagain, 100);
        desk.fail(errno);
        assert_eq!(desk.pass(1), "accept ".repeat(64) + "peek disarm alarm", "P2");
        desk.wait(10);
        assert_eq!(desk.pass(0), "arm no-alarm ".to_owned() + &"accept ".repeat(64) + "peek disarm alarm");
        desk.wait(20);
        desk.fail(0);
        assert_eq!(desk.pass(1), "arm no-alarm accept accept accept");
        desk.fail(errno);
        assert_eq!(desk.pass(1), "accept ".repeat(64) + "peek disarm alarm", "as many after a success");
    }
}

#[test]
fn backing_off_doubles_to_a_fifth_of_a_second_and_begins_anew_after_a_success() {
    let mut desk = desk();
    for _ in 0..2 {
        desk.fail(libc::ENOBUFS);
        desk.pass(1);
        for delay in [10, 20, 40, 80, 160, 200, 200] {
            desk.wait(delay - 1);
            assert_eq!(desk.pass(0), "alarm peek", "P2: {delay} ms");
            desk.wait(1);
            assert!(desk.pass(0).contains("accept"), "P11: {delay} ms");
        }
        desk.fail(0);
        desk.wait(200);
        desk.pass(0);
        assert_eq!(desk.acceptor.state(), State::Listening);
    }
}

#[test]
fn an_accept_that_tells_of_a_dead_listener_is_quoted_once() {
    for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP] {
        let mut desk = desk();
        desk.fail(errno);
        desk.queue.waiting.store(1, Ordering::Relaxed);
        let dead = desk.acceptor.drain(drop).expect_err("P7: it is dead");
        assert_eq!(dead.errno(), Some(Errno::new(errno)), "P7");
        let told =
            format!("the listener was shut down or closed and accepts no more ({:?})", Errno::new(errno));
        assert_eq!(dead.to_string(), told + ": open a new one");
        assert_eq!(desk.pass(1), "", "P7: told once, and left alone");
        assert_eq!((desk.acceptor.state(), desk.acceptor.counters().dead), (State::Closed, 1));
    }
}

/// Full whenever it is asked, but for every so manieth time, and says that there is room when anyone stands in line.
struct Fickle(Arc<AtomicU32>, u32);

impl Admission for Fickle {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(asked < 1000, "P6: a pass without end");
        if asked % self.1 == 0 { Reserve::Room(()) } else { Reserve::Full }
    }

    fn cancel(&self, (): ()) {}

    fn stand(&self, _: &Arc<Bell>, _: Until) -> Line {
        Line::Room
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}

/// Notes when it is asked. Refuses every other connection.
struct Asking {
    queue: Arc<Queue>,
    waits: bool,
}

impl Admission for Asking {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        let waiting = self.queue.note("reserve");
        if waiting % 2 == 0 { Reserve::Room(()) } else { Reserve::Shed(Refusal::Close.into()) }
    }

    fn never_waits(&self) -> bool {
        !self.waits
    }

    fn cancel(&self, (): ()) {
        self.queue.note("cancel");
    }

    fn stand(&self, _: &Arc<Bell>, _: Until) -> Line {
        Line::Room
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<()> {
        None
    }
}

#[test]
fn who_never_waits_is_asked_when_a_connection_is_here_and_others_before() {
    for (waits, calls) in [
        (false, "accept reserve accept reserve refuse accept reserve accept"),
        (true, "reserve accept refuse reserve accept reserve accept refuse reserve accept cancel"),
    ] {
        let queue = Arc::new(Queue::default());
        let admission = Asking { queue: Arc::clone(&queue), waits };
        let mut desk = Desk::on(queue, admission, Trigger::Level, EmptyCheck::UntilEagain, 64);
        assert_eq!(desk.pass(3), calls);
    }
}

#[test]
fn a_policy_that_takes_back_its_word_is_asked_a_few_times_and_no_oftener_than_the_budget_says() {
    for (budget, most) in [(1, 1), (3, 3), (4, 4), (7, 4), (64, 4)] {
        let asked = Arc::default();
        let never = u32::MAX;
        let mut desk =
            Desk::behind(Fickle(Arc::clone(&asked), never), Trigger::Level, EmptyCheck::UntilEagain, budget);
        desk.pass(1);
        assert_eq!(asked.load(Ordering::Relaxed), most, "P6, P2: budget {budget}");
        (0..100).for_each(|_| drop(desk.pass(0)));
        assert_eq!(asked.load(Ordering::Relaxed), 4, "P2: in however many passes");
        assert_eq!(desk.acceptor.state(), State::Throttled);
        (1..=5).for_each(|more| {
            desk.wait(1);
            desk.pass(0);
            assert_eq!(
                asked.load(Ordering::Relaxed),
                4 + more,
                "P11: once each time that its alarm goes off"
            );
        });
    }
}

#[test]
fn who_was_given_room_in_between_is_asked_as_often_as_before() {
    let mut desk = Desk::behind(Fickle(Arc::default(), 3), Trigger::Level, EmptyCheck::Poll, 64);
    for round in 0..50 {
        desk.pass(1);
        assert_eq!(desk.acceptor.state(), State::Listening, "P11: round {round}");
    }
    assert_eq!(desk.acceptor.counters().delivered, 50);
}
