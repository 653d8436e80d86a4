//! The counters of errors, and the time in each state.

use std::time::Duration;

use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Acceptor, Counters, Gate, State};

use crate::passes::blocking::{behind, polling};

#[test]
fn exhaustion_is_counted_by_errno() {
    let parts = |counters: &Counters| {
        [
            counters.exhausted_process_descriptors,
            counters.exhausted_system_descriptors,
            counters.exhausted_memory,
            counters.exhausted_other,
        ]
    };
    for (errno, expected) in [
        (libc::EMFILE, [1, 0, 0, 0]),
        (libc::ENFILE, [0, 1, 0, 0]),
        (libc::ENOMEM, [0, 0, 1, 0]),
        (libc::ENOBUFS, [0, 0, 1, 0]),
        (libc::EPERM, [0, 0, 0, 1]),
        (4095, [0, 0, 0, 1]),
    ] {
        let mut passes = polling();
        passes.fail(errno);
        passes.pass(1);
        let counters = passes.acceptor.counters();
        assert_eq!((counters.exhausted, parts(&counters)), (1, expected), "{errno}");
        assert_eq!(counters.last_errno, Some(Errno::new(errno)));
        assert!(counters.is_balanced());
    }
}

#[test]
fn last_errno_skips_empty_and_interrupted() {
    let mut passes = polling();
    assert_eq!(passes.acceptor.counters().last_errno, None);
    for (errno, expected) in [
        (libc::EAGAIN, None),
        (libc::ECONNABORTED, Some(libc::ECONNABORTED)),
        (libc::EAGAIN, Some(libc::ECONNABORTED)),
        (0, Some(libc::ECONNABORTED)),
        (libc::ENFILE, Some(libc::ENFILE)),
    ] {
        passes.fail(errno);
        passes.pass(1);
        passes.fail(0);
        passes.wait(1000);
        passes.pass(1);
        assert_eq!(passes.acceptor.counters().last_errno, expected.map(Errno::new), "{errno}");
        assert_eq!(passes.acceptor.state(), State::Listening);
    }
}

#[test]
fn last_errno_names_the_reason_of_a_block() {
    let mut passes = polling();
    passes.fail(libc::EINTR);
    passes.pass(1);
    assert_eq!(passes.acceptor.state(), State::Exhausted, "64 of them are no signal");
    let counters = passes.acceptor.counters();
    assert_eq!((counters.interrupted, counters.exhausted), (64, 0));
    assert_eq!(counters.last_errno, Some(Errno::new(libc::EINTR)), "the reason of the block");
}

#[test]
fn time_in_states_adds_up() {
    let gate = Gate::new(1);
    let mut passes = behind(gate.clone(), ());
    let control = passes.acceptor.control();
    let time = |state| u32::try_from(control.counters().time_in(state).as_millis()).unwrap();
    passes.wait(3);
    assert_eq!(time(State::Listening), 3, "up to now, without a pass");
    let permit = gate.try_acquire();
    passes.pass(1);
    passes.wait(5);
    assert_eq!((time(State::Listening), time(State::Full)), (3, 5));
    drop(permit);
    passes.pass(0);
    passes.wait(7);
    passes.fail(libc::EMFILE);
    passes.pass(1);
    passes.wait(10);
    passes.fail(0);
    passes.pass(0);
    passes.wait(1);
    let pause = control.pause();
    passes.wait(2);
    assert_eq!(time(State::Paused), 0, "the owner has not noticed yet");
    passes.pass(0);
    passes.wait(11);
    passes.pass(0);
    drop(pause);
    passes.pass(0);
    control.stop();
    passes.pass(0);
    passes.wait(13);
    let times = [
        State::Listening,
        State::Throttled,
        State::Exhausted,
        State::Full,
        State::Paused,
        State::Stopped,
        State::Closed,
    ]
    .map(time);
    assert_eq!(times, [3 + 7 + 1 + 2, 0, 10, 5, 11, 13, 0]);
    assert_eq!(Counters::default().time_in(State::Listening), Duration::ZERO);
}
