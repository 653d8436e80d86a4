//! epoll_ctl fails at every call in turn, through everything an acceptor asks of it.

use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, AnyListener, EpollAcceptor, Gate, State, Trigger};
use socket2::Socket;

use crate::interpose::{Call, Cost, Plan, outstanding, plan};
use crate::support::{
    Door, Kind, LISTENER, LONG, Owner, TRIGGERS, assert_all_served, assert_balanced, done_in_child,
    open_descriptors, serve,
};

type Gated = EpollAcceptor<AnyListener<Socket>, Trigger, Gate>;

/// Full, rung, lowered, raised, paused, resumed: whatever disarms and arms again. Then everyone is served.
fn live(owner: &mut Owner, acceptor: &mut Gated, door: &Door, gate: &Gate) {
    let mut clients = door.connect_many(3);
    let mut kept = Vec::new();
    for round in 0..6 {
        match round {
            1 => kept.clear(),
            2 => acceptor.control().pause(),
            3 => clients.extend(door.connect_many(2)),
            4 => acceptor.control().resume(),
            5 => {
                gate.set_limit(0);
                kept.clear();
                gate.set_limit(2);
            }
            _ => {}
        }
        for _ in 0..3 {
            for _ in 0..owner.wait(Duration::from_millis(2)) {
                for connection in acceptor.ready() {
                    let connection = connection.unwrap();
                    serve(&connection);
                    kept.push(connection);
                }
            }
        }
    }
    // From here on nobody comes, and whoever is in leaves when nothing happens.
    let begin = Instant::now();
    while acceptor.counters().delivered < 5 {
        assert!(begin.elapsed() < LONG / 4, "{:?} {:?} {}", door.kind, acceptor.state(), acceptor.counters());
        let due = owner.wait(Duration::from_millis(5));
        for _ in 0..due {
            for connection in acceptor.ready() {
                let connection = connection.unwrap();
                serve(&connection);
                kept.push(connection);
            }
        }
        if due == 0 {
            kept.clear();
        }
    }
    assert_all_served(&clients);
    kept.clear();
    assert!(owner.wakes < 60, "{} wakes: {}", owner.wakes, acceptor.counters());
    // A failure in the last pass of all is made good by the alarm.
    let control = acceptor.control();
    owner.until(
        "open",
        || assert_eq!(acceptor.drain(drop).unwrap(), 0),
        || control.state() == State::Listening,
    );
    owner.settle(acceptor);
    assert_eq!(gate.in_use(), 0);
    assert_balanced(acceptor);
}

/// One life with these failures. Whether they all came.
fn life(kind: Kind, trigger: Trigger, plans: [Option<Plan>; 2]) -> bool {
    let (listener, door) = kind.listen();
    let gate = Gate::new(2);
    let mut owner = Owner::new();
    let mut acceptor =
        trigger.on(AnyListener(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
    plan(plans);
    live(&mut owner, &mut acceptor, &door, &gate);
    let all = outstanding() == 0;
    plan([None; 2]);
    drop(acceptor);
    assert_eq!(owner.registrations(), []);
    all
}

/// Fails every call in turn, until there is none so late. Who is registered exclusively modifies nothing.
fn every_one(failing: impl Fn(u32) -> [Option<Plan>; 2]) {
    every_one_of(&[Trigger::Level, Trigger::Edge], failing);
}

fn every_one_of(triggers: &[Trigger], failing: impl Fn(u32) -> [Option<Plan>; 2]) {
    let before = open_descriptors();
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in triggers.iter().copied() {
            let calls = (1..200).take_while(|nth| life(kind, trigger, failing(*nth))).count();
            assert!((1..199).contains(&calls), "{calls} calls");
        }
    }
    assert_eq!(open_descriptors(), before);
}

#[test]
fn whichever_modification_fails_nobody_is_stranded() {
    if done_in_child("controlling::whichever_modification_fails_nobody_is_stranded") {
        return;
    }
    for errno in [libc::ENOMEM, libc::ENOENT, libc::EBADF, libc::EPERM] {
        every_one(|nth| [Some(Plan::once(Call::Modify, nth, errno)), None]);
    }
}

#[test]
fn whichever_two_modifications_in_a_row_fail_nobody_is_stranded() {
    if done_in_child("controlling::whichever_two_modifications_in_a_row_fail_nobody_is_stranded") {
        return;
    }
    let (errno, cost) = (libc::ENOMEM, Cost::Nothing);
    every_one(|nth| [Some(Plan { call: Call::Modify, nth, times: 2, errno, cost }), None]);
}

#[test]
fn a_failing_modification_and_then_a_failing_addition_strand_nobody() {
    if done_in_child("controlling::a_failing_modification_and_then_a_failing_addition_strand_nobody") {
        return;
    }
    // Whoever cannot disarm detaches, and is added again.
    for nth_modify in 1..=3 {
        for errno in [libc::ENOMEM, libc::ENOSPC] {
            for kind in [Kind::Tcp4, Kind::UnixStream] {
                for trigger in [Trigger::Level, Trigger::Edge] {
                    life(
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
fn whichever_addition_of_an_exclusive_acceptor_fails_nobody_is_stranded() {
    if done_in_child("controlling::whichever_addition_of_an_exclusive_acceptor_fails_nobody_is_stranded") {
        return;
    }
    for errno in [libc::ENOMEM, libc::ENOSPC] {
        for times in 1..=3 {
            let cost = Cost::Nothing;
            every_one_of(&[Trigger::Exclusive], |nth| {
                [Some(Plan { call: Call::Add, nth, times, errno, cost }), None]
            });
        }
    }
}

#[test]
fn a_registration_that_fails_at_any_call_gives_the_listener_back_and_leaves_nothing() {
    if done_in_child(
        "controlling::a_registration_that_fails_at_any_call_gives_the_listener_back_and_leaves_nothing",
    ) {
        return;
    }
    let (listener, door) = Kind::Tcp4.listen();
    let mut listener = AnyListener(listener);
    let mut owner = Owner::new();
    let client = door.connect();
    let before = open_descriptors();
    for (errno, remedy) in [(libc::ENOMEM, "try again later"), (libc::ENOSPC, "max_user_watches")] {
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
fn a_listener_deleted_behind_the_acceptors_back_comes_back_with_the_next_arming() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = crate::support::accept_on(&owner, listener, trigger, None);
            owner.epoll.delete(acceptor.listener()).unwrap();
            let client = door.connect();
            let control = acceptor.control();
            control.pause();
            owner.settle(&mut acceptor);
            control.resume();
            owner.serve(&mut acceptor, 1);
            client.assert_served();
        }
    }
}
