//! `epoll_ctl` fails at every call in turn.

use std::time::{Duration, Instant};

use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Acceptor, Gate, Pending, Refusal, State, Trigger};

use crate::faults::interpose::{Call, Cost, Plan, freeze_clock, outstanding, plan};
use crate::support::{
    Any, AnySocket, Endpoint, Kind, LISTENER, LONG, Owner, Read, SHORT, TRIGGERS, assert_all_served,
    assert_balanced, done_in_child, open_descriptors, serve,
};

/// Makes the acceptor disarm and rearm in every way (a full gate, a release, a lower and a higher limit, pause and
/// resume), then asserts that every connection is served.
fn exercise(owner: &mut Owner, acceptor: &mut Any, endpoint: &Endpoint, gate: &Gate) {
    let mut clients = endpoint.connect_many(3);
    let (mut open, mut pause) = (Vec::new(), None);
    for round in 0..6 {
        match round {
            1 => open.clear(),
            2 => pause = Some(acceptor.control().pause()),
            3 => clients.extend(endpoint.connect_many(2)),
            4 => drop(pause.take()),
            5 => {
                gate.set_limit(0);
                open.clear();
                gate.set_limit(2);
            }
            _ => {}
        }
        for _ in 0..3 {
            for _ in 0..owner.wait(Duration::from_millis(2)) {
                for connection in acceptor.ready() {
                    let connection = connection.unwrap();
                    serve(&connection);
                    open.push(connection);
                }
            }
        }
    }
    // No further client connects; open connections are closed when no event is due.
    let begin = Instant::now();
    while acceptor.counters().delivered < 5 {
        assert!(
            begin.elapsed() < LONG / 4,
            "{:?} {:?} {}",
            endpoint.kind,
            acceptor.state(),
            acceptor.counters()
        );
        let due = owner.wait(Duration::from_millis(5));
        for _ in 0..due {
            for connection in acceptor.ready() {
                let connection = connection.unwrap();
                serve(&connection);
                open.push(connection);
            }
        }
        if due == 0 {
            open.clear();
        }
    }
    assert_all_served(&clients);
    open.clear();
    assert!(owner.wakes < 60, "{} wakes: {}", owner.wakes, acceptor.counters());
    // The timer repairs a failure in the last pass.
    let control = acceptor.control();
    owner.until(
        "listening",
        || assert_eq!(acceptor.drain(drop).unwrap(), 0),
        || control.state() == State::Listening,
    );
    owner.settle(acceptor);
    assert_eq!(gate.in_use(), 0);
    assert_balanced(acceptor);
}

/// Exercises a new acceptor with these failures. Returns `true` if all of them happened.
fn run(kind: Kind, trigger: Trigger, plans: [Option<Plan>; 2]) -> bool {
    let (listener, endpoint) = kind.listen();
    let gate = Gate::new(2);
    let mut owner = Owner::new();
    let mut acceptor = trigger.on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
    plan(plans);
    exercise(&mut owner, &mut acceptor, &endpoint, &gate);
    let all = outstanding() == 0;
    plan([None; 2]);
    drop(acceptor);
    assert_eq!(owner.registrations(), []);
    all
}

/// Fails the first call, then the second, and so on, up to the last. An exclusive acceptor makes no `EPOLL_CTL_MOD`.
fn fail_each_call(plans: impl Fn(u32) -> [Option<Plan>; 2]) {
    fail_each_call_with(&[Trigger::Level, Trigger::Edge], plans);
}

fn fail_each_call_with(triggers: &[Trigger], plans: impl Fn(u32) -> [Option<Plan>; 2]) {
    let before = open_descriptors();
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in triggers.iter().copied() {
            let calls = (1..200).take_while(|nth| run(kind, trigger, plans(*nth))).count();
            assert!((1..199).contains(&calls), "{calls} calls");
        }
    }
    assert_eq!(open_descriptors(), before);
}

#[test]
fn failing_mod_strands_nothing() {
    if done_in_child("faults::epoll_ctl::failing_mod_strands_nothing") {
        return;
    }
    for errno in [libc::ENOMEM, libc::ENOENT, libc::EBADF, libc::EPERM] {
        fail_each_call(|nth| [Some(Plan::once(Call::Modify, nth, errno)), None]);
    }
}

#[test]
fn two_failing_mods_strand_nothing() {
    if done_in_child("faults::epoll_ctl::two_failing_mods_strand_nothing") {
        return;
    }
    let (errno, cost) = (libc::ENOMEM, Cost::Nothing);
    fail_each_call(|nth| [Some(Plan { call: Call::Modify, nth, times: 2, errno, cost }), None]);
}

#[test]
fn failing_mod_then_add_strands_nothing() {
    if done_in_child("faults::epoll_ctl::failing_mod_then_add_strands_nothing") {
        return;
    }
    // An acceptor that cannot disarm deletes its registration, then adds it again.
    for nth_modify in 1..=3 {
        for errno in [libc::ENOMEM, libc::ENOSPC] {
            for kind in [Kind::Tcp4, Kind::UnixStream] {
                for trigger in [Trigger::Level, Trigger::Edge] {
                    run(
                        kind,
                        trigger,
                        [
                            Some(Plan::once(Call::Modify, nth_modify, libc::ENOMEM)),
                            Some(Plan::once(Call::Add, 1, errno)),
                        ],
                    );
                }
            }
        }
    }
}

#[test]
fn failing_exclusive_add_strands_nothing() {
    if done_in_child("faults::epoll_ctl::failing_exclusive_add_strands_nothing") {
        return;
    }
    for errno in [libc::ENOMEM, libc::ENOSPC] {
        for times in 1..=3 {
            let cost = Cost::Nothing;
            fail_each_call_with(&[Trigger::Exclusive], |nth| {
                [Some(Plan { call: Call::Add, nth, times, errno, cost }), None]
            });
        }
    }
}

#[test]
fn failing_register_returns_the_listener() {
    if done_in_child("faults::epoll_ctl::failing_register_returns_the_listener") {
        return;
    }
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut listener = AnySocket(listener);
    let mut owner = Owner::new();
    let client = endpoint.connect();
    let before = open_descriptors();
    for (errno, remedy) in [(libc::ENOMEM, "free memory"), (libc::ENOSPC, "max_user_watches")] {
        for nth in 1..=3 {
            plan([Some(Plan::once(Call::Add, nth, errno)), None]);
            let error = Trigger::Edge.on(listener).register(&owner.epoll, LISTENER).map(drop).unwrap_err();
            assert_eq!(outstanding(), 0);
            assert!(error.to_string().contains(remedy), "{error}");
            listener = error.into_listener();
            assert_eq!(owner.registrations(), []);
            assert_eq!(open_descriptors(), before);
        }
    }
    let mut acceptor = Trigger::Edge.on(listener).register(&owner.epoll, LISTENER).unwrap();
    owner.serve(&mut acceptor, 1);
    client.assert_served();
}

#[test]
fn foreign_delete_is_repaired_by_the_next_arming() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = crate::support::accept_on(&owner, listener, trigger, None);
            owner.epoll.delete(acceptor.listener()).unwrap();
            let client = endpoint.connect();
            let control = acceptor.control();
            let pause = control.pause();
            owner.settle(&mut acceptor);
            drop(pause);
            owner.serve(&mut acceptor, 1);
            client.assert_served();
        }
    }
}

#[test]
fn edge_rearm_repairs_a_foreign_delete() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, endpoint) = kind.listen();
        let mut owner = Owner::new();
        let mut acceptor = crate::support::accept_on(&owner, listener, Trigger::Edge, None);
        let early = endpoint.connect();
        owner.serve(&mut acceptor, 1);
        early.assert_served();
        for _ in 0..2 {
            let before = owner.registrations();
            owner.epoll.delete(acceptor.listener()).unwrap();
            let client = endpoint.connect();
            assert_eq!(owner.wait(SHORT), 0, "the kernel reports nothing");
            // A spurious pass arms: EPOLL_CTL_MOD fails with ENOENT, and EPOLL_CTL_ADD repairs it.
            drop(acceptor.ready());
            assert_eq!(owner.registrations().len(), before.len());
            owner.serve(&mut acceptor, 1);
            client.assert_served();
            assert_eq!((acceptor.counters().exhausted, acceptor.state()), (0, State::Listening));
        }
    }
}

/// Blocks at a full gate: the first `EPOLL_CTL_ADD` disarms, the second one arms again.
#[test]
fn failing_exclusive_add_is_retried() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for nth in 1..=2 {
            let (listener, endpoint) = kind.listen();
            let gate = Gate::new(1);
            let mut owner = Owner::new();
            let builder = Trigger::Exclusive.on(AnySocket(listener)).gate(&gate);
            let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(2);
            plan([Some(Plan::once(Call::Add, nth, libc::ENOMEM)), None]);
            let kept = owner.take(&mut acceptor, 1);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Full);
            // Without the registration the waker and the alarm are left.
            assert_eq!(owner.registrations().len(), if nth == 1 { 2 } else { 3 });
            drop(kept);
            if nth == 2 {
                assert!(owner.wait(LONG) > 0);
                assert_eq!(acceptor.drain(drop).unwrap(), 0, "it cannot arm");
                assert_eq!(acceptor.state(), State::Exhausted);
                assert_eq!(acceptor.counters().last_errno, Some(Errno::new(libc::ENOMEM)));
            }
            assert_eq!(outstanding(), 0);
            owner.serve(&mut acceptor, 1);
            assert_all_served(&clients);
            let late = endpoint.connect();
            owner.serve(&mut acceptor, 1);
            late.assert_served();
            assert_eq!(gate.in_use(), 0);
        }
    }
}

/// As in a process that enters a time namespace: the timer counts on, and the clock does not agree.
#[test]
fn expired_alarm_is_believed_against_the_clock() {
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let mut acceptor = crate::support::accept_on(&owner, listener, trigger, None);
        let client = endpoint.connect();
        plan([Some(Plan::once(Call::Accept, 1, libc::EMFILE)), None]);
        freeze_clock(true);
        assert!(owner.wait(LONG) > 0);
        assert_eq!(acceptor.drain(drop).unwrap(), 0);
        assert_eq!(acceptor.state(), State::Exhausted);
        assert_eq!(acceptor.drain(drop).unwrap(), 0, "not before the alarm");
        assert!(owner.wait(LONG) > 0);
        assert_eq!(acceptor.drain(|connection| serve(&connection)).unwrap(), 1);
        client.assert_served();
        // The deadline of a shutdown, with a connection that no permit admits.
        let pause = acceptor.control().pause();
        let last = endpoint.connect();
        let within = Duration::from_millis(20);
        acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), within);
        for _ in 0..10 {
            if !acceptor.state().is_terminal() && owner.wait(LONG) > 0 {
                assert_eq!(acceptor.drain(drop).unwrap(), 0);
            }
        }
        freeze_clock(false);
        assert_eq!(acceptor.state(), State::Stopped);
        assert_eq!(last.read_within(LONG), Read::End);
        drop(pause);
    }
}
