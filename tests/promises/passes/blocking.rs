//! The calls of an acceptor that blocks and unblocks, and the states that they leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::sim::{Config, Semaphore};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Acceptor, Filter, Gate, Pending, Refusal, State, Trigger, WhenFull};

use crate::passes::{Passes, Queue};

pub(crate) fn polling() -> Passes {
    Passes::new(Trigger::Level, EmptyCheck::Poll, 64)
}

pub(crate) fn behind<G: Semaphore, F: Filter>(gate: G, filter: F) -> Passes<G, F> {
    Passes::on(Arc::new(Queue::default()), gate, filter, Trigger::Level, EmptyCheck::Poll, 64)
}

impl<G: Semaphore, F: Filter> Passes<G, F> {
    /// From now on every accept fails with this errno; 0 ends that.
    pub(crate) fn fail(&self, errno: i32) {
        self.queue.errno.store(errno, Ordering::Relaxed);
    }

    pub(crate) fn wait(&self, milliseconds: u32) {
        self.queue.now.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// The number of wakeups of the owner since the last call.
    fn wakes(&self) -> u32 {
        self.queue.wakes.swap(0, Ordering::Relaxed)
    }
}

#[test]
fn pause_disarms_with_and_without_pending() {
    for pending in [0, 2] {
        let mut passes = polling();
        let pause = passes.acceptor.control().pause();
        assert_eq!(passes.pass(pending), "peek disarm");
        assert_eq!(passes.acceptor.state(), State::Paused, "P9");
        assert_eq!(passes.pass(0), "peek", "a needless pass");
        assert_eq!(passes.acceptor.counters().pauses, 1, "P9: paused once");
        drop(pause);
        assert!(passes.pass(1).starts_with("arm peek accept"));
        assert_eq!(passes.acceptor.state(), State::Listening, "P9");
    }
}

#[test]
fn full_gate_disarms_only_with_pending() {
    let gate = Gate::new(1);
    let mut passes = behind(gate.clone(), ());
    let permit = gate.try_acquire();
    for when in ["before the first event", "the connection was reset"] {
        assert_eq!(passes.pass(0), "peek", "nothing is pending: {when}");
        assert_eq!(passes.acceptor.state(), State::Listening);
    }
    assert_eq!(passes.pass(1), "peek disarm");
    assert_eq!((passes.acceptor.state(), passes.acceptor.counters().full), (State::Full, 1));
    drop(permit);
    assert_eq!(passes.pass(0), "arm peek accept peek");
    assert_eq!(passes.acceptor.state(), State::Listening);
}

#[test]
fn emfile_disarms_and_sets_the_alarm() {
    let mut passes = polling();
    passes.fail(libc::EMFILE);
    assert_eq!(passes.pass(1), "peek accept peek disarm alarm");
    assert_eq!(passes.acceptor.state(), State::Exhausted);
    passes.wait(9);
    assert_eq!(
        passes.pass(0),
        "alarm peek",
        "P2: a needless pass sets the alarm again, which its event used up"
    );
    passes.wait(1);
    assert_eq!(passes.pass(0), "arm no-alarm peek accept peek disarm alarm", "P11: it retries");
    passes.fail(0);
    passes.wait(19);
    assert_eq!(passes.pass(0), "alarm peek", "P2: the second back-off is longer");
    passes.wait(1);
    assert_eq!(passes.pass(0), "arm no-alarm peek accept peek");
    assert_eq!((passes.acceptor.state(), passes.acceptor.counters().exhausted), (State::Listening, 2));
}

/// A descriptor that is closed helps if descriptors ran out, and not if memory did.
#[test]
fn reserve_is_for_descriptors() {
    for (errno, helps) in [
        (libc::EMFILE, true),
        (libc::ENFILE, true),
        (libc::ENOBUFS, false),
        (libc::ENOMEM, false),
        (libc::EPERM, false),
    ] {
        let config = Config { when_exhausted: Some(Refusal::Close), ..Config::new(Trigger::Level, 64) };
        let mut passes: Passes = Passes::with(Arc::default(), None, (), config);
        passes.fail(errno);
        let reserve = if helps { "peek release-reserve accept make-reserve " } else { "" };
        assert_eq!(passes.pass(1), format!("length accept {reserve}peek disarm alarm"), "{errno}");
        let shutdown = Pending::Serve(Refusal::Close);
        passes.acceptor.control().shutdown_gracefully(shutdown, Duration::ZERO);
        assert_eq!(passes.pass(0).matches("release-reserve").count(), usize::from(helps), "{errno}");
    }
}

#[test]
fn emfile_with_an_empty_queue_stays_blocked() {
    let mut passes = polling();
    passes.fail(libc::EMFILE);
    passes.pass(1);
    passes.queue.pending.store(0, Ordering::Relaxed);
    assert_eq!(passes.pass(0), "alarm peek");
    assert_eq!(passes.acceptor.state(), State::Exhausted, "its alarm will wake it");
    passes.wait(10);
    assert_eq!(passes.pass(0), "arm no-alarm peek");
    assert_eq!(passes.acceptor.state(), State::Listening);
}

/// A permit may be released that frees no descriptor.
#[test]
fn useless_releases_are_not_retried_at_once() {
    let gate = Gate::new(100);
    let mut passes = behind(gate.clone(), ());
    let release = || drop(gate.try_acquire());
    passes.fail(libc::EMFILE);
    passes.pass(1);
    for round in 0..3 {
        release();
        assert_eq!(passes.wakes(), 1, "P11: a descriptor may be free, round {round}");
        assert_eq!(passes.pass(0), "arm no-alarm peek accept peek disarm alarm");
        (0..100).for_each(|_| release());
        assert_eq!(passes.wakes(), 0, "P2: that did not help a moment ago");
        passes.wait(4);
        assert_eq!(passes.pass(0), "alarm peek", "P2");
        passes.wait(1);
        assert_eq!(passes.pass(0), "arm no-alarm peek accept peek disarm alarm", "P11: 5 ms later");
    }
    assert_eq!(passes.acceptor.counters().exhausted, 7);
    passes.fail(0);
    release();
    assert_eq!((passes.wakes(), passes.pass(0).as_str()), (1, "arm no-alarm peek accept peek"));
    // A success resets the back-off.
    passes.fail(libc::EMFILE);
    passes.pass(1);
    release();
    assert_eq!(passes.wakes(), 1, "P11");
}

/// A seccomp filter can do that.
#[test]
fn pending_queue_that_yields_eagain_backs_off() {
    let mut passes = polling();
    passes.fail(libc::EAGAIN);
    let attempts = (0..1000).take_while(|nth| {
        passes.pass(u32::from(*nth == 0));
        passes.acceptor.state() == State::Listening
    });
    assert_eq!(attempts.count(), 64, "P2");
    assert_eq!(passes.acceptor.state(), State::Exhausted);
    passes.fail(0);
    passes.wait(10);
    assert_eq!(passes.pass(0), "arm no-alarm peek accept peek", "P11");
}

#[test]
fn listening_acceptor_is_not_enqueued() {
    let gate = Gate::new(2);
    for blocked in [State::Exhausted, State::Full] {
        let mut passes = behind(gate.clone(), ());
        let permit = gate.try_acquire();
        if blocked == State::Exhausted {
            passes.fail(libc::EMFILE);
        } else {
            gate.set_limit(1);
        }
        passes.pass(1);
        assert_eq!(passes.acceptor.state(), blocked);
        passes.fail(0);
        drop(permit);
        assert_eq!(passes.wakes(), 1, "P11: enqueued, {blocked}");
        passes.fail(if blocked == State::Exhausted { libc::EMFILE } else { 0 });
        passes.pass(0);
        passes.fail(0);
        passes.wait(1000);
        passes.pass(1);
        assert_eq!((passes.acceptor.state(), passes.wakes()), (State::Listening, 0));
        drop(gate.try_acquire());
        assert_eq!(passes.wakes(), 0, "P2: listening, {blocked} no more");
        gate.set_limit(2);
    }
}

/// A permit that is handed on unused frees no descriptor.
#[test]
fn permit_handed_on_wakes_no_exhausted_acceptor() {
    for how in ["paused", "stopped", "dropped", "left"] {
        let gate = Gate::new(1);
        let permit = gate.try_acquire();
        let mut full = behind(gate.clone(), ());
        full.pass(1);
        assert_eq!(full.acceptor.state(), State::Full);
        drop(permit);
        // It is granted the permit, and does not begin the pass that would use it.
        let mut exhausted = behind(Gate::clone(&gate).with_when_full(WhenFull::Shed(Refusal::Close)), ());
        exhausted.fail(libc::EMFILE);
        exhausted.pass(1);
        assert_eq!((exhausted.acceptor.state(), exhausted.wakes()), (State::Exhausted, 0));
        let control = full.acceptor.control();
        let pause = (how == "paused").then(|| control.pause());
        match how {
            "paused" => assert_eq!(full.pass(0), "peek"),
            "stopped" => {
                control.stop();
                full.pass(0);
            }
            "dropped" => drop(full),
            _ => {
                // The pass has the permit.
                let _ = full.acceptor.ready();
                drop(full);
            }
        }
        assert_eq!((gate.in_use(), exhausted.wakes()), (0, 0), "P2: {how}");
        drop(pause);
    }
}

#[test]
fn dropped_acceptor_leaves_the_wait_queue() {
    let gate = Gate::new(1);
    let mut passes = behind(gate.clone(), ());
    let permit = gate.try_acquire();
    passes.pass(1);
    assert_eq!(passes.acceptor.state(), State::Full);
    let Passes { queue, acceptor } = passes;
    drop(acceptor);
    drop(permit);
    assert_eq!(
        (queue.wakes.load(Ordering::Relaxed), Arc::strong_count(&queue)),
        (0, 1),
        "not woken, and kept by none"
    );
}

#[test]
fn sixty_four_futile_accepts_back_off() {
    for errno in [libc::EINTR, libc::ECONNABORTED] {
        let mut passes = Passes::new(Trigger::Level, EmptyCheck::UntilEagain, 100);
        passes.fail(errno);
        assert_eq!(passes.pass(1), "accept ".repeat(64) + "peek disarm alarm", "P2");
        passes.wait(10);
        assert_eq!(passes.pass(0), "arm no-alarm ".to_owned() + &"accept ".repeat(64) + "peek disarm alarm");
        passes.wait(20);
        passes.fail(0);
        assert_eq!(passes.pass(1), "arm no-alarm accept accept accept");
        passes.fail(errno);
        assert_eq!(passes.pass(1), "accept ".repeat(64) + "peek disarm alarm", "as many after a success");
    }
}

#[test]
fn aborted_connection_counts_as_taken() {
    for (errno, attempts, per_pass) in [(libc::ECONNABORTED, 3, "2+: 1"), (libc::EINTR, 64, "0: 1")] {
        let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
        passes.fail(errno);
        passes.pass(3);
        let counters = passes.acceptor.counters();
        assert_eq!((counters.attempts, counters.per_pass.to_string().as_str()), (attempts, per_pass));
    }
}

/// Clients that abort now and then are no reason to back off.
#[test]
fn success_resets_the_futile_accepts() {
    for errno in [libc::EINTR, libc::ECONNABORTED] {
        let mut passes = Passes::new(Trigger::Level, EmptyCheck::UntilEagain, 63);
        for round in 0..3 {
            passes.fail(errno);
            assert_eq!(passes.pass(1), ["accept"; 63].join(" "), "round {round}");
            passes.fail(0);
            assert_eq!(passes.pass(0), "accept accept", "P11: round {round}");
        }
        assert_eq!(passes.acceptor.state(), State::Listening);
    }
}

#[test]
fn failed_arming_keeps_the_registration() {
    let mut passes = Passes::new(Trigger::Edge, EmptyCheck::Poll, 64);
    passes.queue.arm_fails.store(true, Ordering::Relaxed);
    assert_eq!(passes.pass(1), "arm alarm");
    assert_eq!(passes.acceptor.state(), State::Exhausted);
    assert_eq!(passes.end(), "remove", "P13");
}

#[test]
fn backoff_doubles_until_a_success() {
    let mut passes = polling();
    for _ in 0..2 {
        passes.fail(libc::ENOBUFS);
        passes.pass(1);
        for delay in [10, 20, 40, 80, 160, 200, 200] {
            passes.wait(delay - 1);
            assert_eq!(passes.pass(0), "alarm peek", "P2: {delay} ms");
            passes.wait(1);
            assert!(passes.pass(0).contains("accept"), "P11: {delay} ms");
        }
        passes.fail(0);
        passes.wait(200);
        passes.pass(0);
        assert_eq!(passes.acceptor.state(), State::Listening);
    }
}

#[test]
fn fatal_errno_is_reported_once() {
    for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP] {
        let mut passes = polling();
        passes.fail(errno);
        passes.queue.pending.store(1, Ordering::Relaxed);
        let closed = passes.acceptor.drain(drop).expect_err("P7: it is closed");
        assert_eq!(closed.errno(), Some(Errno::new(errno)), "P7");
        let message =
            format!("the listener was shut down or closed ({:?}): open a new one", Errno::new(errno));
        assert_eq!(closed.to_string(), message);
        assert_eq!(passes.pass(1), "", "P7: reported once, and left alone");
        assert_eq!((passes.acceptor.state(), passes.acceptor.counters().fatal), (State::Closed, 1));
    }
}

/// A Unix listener that was shut down is reported as not empty forever: only EAGAIN ends its queue.
#[test]
fn closed_listener_is_drained_until_eagain() {
    let mut passes = polling();
    passes.queue.closed.store(true, Ordering::Relaxed);
    passes.queue.pending.store(3, Ordering::Relaxed);
    passes.queue.calls();
    let served: Vec<_> = passes.acceptor.ready().map(|connection| connection.is_ok()).collect();
    assert_eq!(served, [true, true, true, false], "P7");
    assert_eq!(passes.queue.calls(), "peek accept accept accept accept remove");
}
