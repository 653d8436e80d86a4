//! Pause and stop: from any thread, at any moment, any number of times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Control, Gate, State, Trigger};

use crate::support::{
    Any, AnySocket, Client, EMPTY_CHECKS, Endpoint, Kind, LISTENER, LONG, Owner, SHORT, TRIGGERS, accept_on,
    assert_all_served, assert_balanced, matrix, serve, wait_until,
};

fn each(test: impl Fn(&mut Owner, &mut Any, &Endpoint)) {
    for (listener, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, check);
            test(&mut owner, &mut acceptor, &endpoint);
            assert_balanced(&acceptor);
            empty_the_queue(acceptor);
        }
    }
}

/// Accepts what is left, so that the next case finds the queue empty.
fn empty_the_queue(acceptor: Any) {
    let listener = acceptor.into_listener();
    while epoll_acceptor::socket::has_pending(&listener).unwrap() {
        drop(listener.0.accept().unwrap());
    }
}

/// Runs a command on another thread.
fn elsewhere<T: Send + 'static>(
    control: &Control,
    command: impl FnOnce(&Control) -> T + Send + 'static,
) -> T {
    let control = control.clone();
    thread::spawn(move || command(&control)).join().unwrap()
}

/// Asserts that the acceptor neither serves nor is woken.
fn assert_settles(owner: &mut Owner, acceptor: &mut Any, state: State) {
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), state);
}

#[test]
fn pause_from_another_thread_holds_until_its_drop() {
    each(|owner, acceptor, endpoint| {
        let control = acceptor.control();
        let pause = elsewhere(&control, Control::pause);
        assert_settles(owner, acceptor, State::Paused);
        let clients = endpoint.connect_many(3);
        assert_settles(owner, acceptor, State::Paused);
        assert_eq!(acceptor.counters().attempts, 0);
        thread::spawn(move || drop(pause)).join().unwrap();
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
        assert_eq!(acceptor.state(), State::Listening);
        assert_eq!(acceptor.counters().pauses, 1);
    });
}

#[test]
fn pause_keeps_connections_in_the_queue() {
    each(|owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(3);
        let pause = acceptor.control().pause();
        assert_settles(owner, acceptor, State::Paused);
        clients[0].assert_pending();
        drop(pause);
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
    });
}

#[test]
fn pause_during_a_pass_ends_it() {
    each(|owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(4);
        let control = acceptor.control();
        assert_eq!(owner.wait(SHORT), 1);
        let mut pauses = Vec::new();
        for connection in acceptor.ready() {
            serve(&connection.unwrap());
            pauses.push(control.pause());
        }
        assert_eq!(pauses.len(), 1);
        assert_settles(owner, acceptor, State::Paused);
        pauses.clear();
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
    });
}

#[test]
fn short_pause_in_the_loop_body_has_no_effect() {
    each(|owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(4);
        let control = acceptor.control();
        let mut served = 0;
        let begin = Instant::now();
        while served < 4 {
            assert!(begin.elapsed() < LONG);
            for _ in 0..owner.wait(SHORT) {
                for connection in acceptor.ready() {
                    serve(&connection.unwrap());
                    served += 1;
                    drop(control.pause());
                    if served % 2 == 0 {
                        break;
                    }
                }
            }
        }
        assert_all_served(&clients);
    });
}

#[test]
fn forgotten_pass_under_pause_strands_nothing() {
    each(|owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(3);
        let pause = acceptor.control().pause();
        assert!(owner.wait(SHORT) > 0);
        std::mem::forget(acceptor.ready());
        drop(pause);
        assert!(owner.wait(SHORT) > 0);
        std::mem::forget(acceptor.ready());
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
    });
}

#[test]
fn pauses_are_counted() {
    each(|owner, acceptor, endpoint| {
        let control = acceptor.control();
        let clients = endpoint.connect_many(2);
        let (operator, watchdog) = (control.pause(), control.clone().pause());
        assert_settles(owner, acceptor, State::Paused);
        let third = elsewhere(&control, Control::pause);
        assert_settles(owner, acceptor, State::Paused);
        thread::spawn(move || drop(watchdog)).join().unwrap();
        assert_settles(owner, acceptor, State::Paused);
        drop(third);
        assert_settles(owner, acceptor, State::Paused);
        assert_eq!((acceptor.counters().pauses, acceptor.counters().attempts), (1, 0));
        drop(operator);
        owner.serve(acceptor, 2);
        assert_all_served(&clients);
        control.stop();
        control.stop();
        assert_settles(owner, acceptor, State::Stopped);
    });
}

#[test]
fn stop_is_final_and_keeps_the_queue() {
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let clients = endpoint.connect_many(3);
        let control = acceptor.control();
        let pause = control.pause();
        elsewhere(&control, |control| {
            control.stop();
            drop(pause);
        });
        assert_settles(&mut owner, &mut acceptor, State::Stopped);
        drop(control.pause());
        assert_settles(&mut owner, &mut acceptor, State::Stopped);
        assert_eq!(acceptor.counters().attempts, 0);
        assert_eq!(owner.registrations().len(), 2, "the waker and the alarm");
        let late = endpoint.connect();
        let listener = acceptor.into_listener();
        assert_eq!(owner.registrations(), []);
        let mut next = accept_on(&owner, listener.0, trigger, None);
        owner.serve(&mut next, 4);
        assert_all_served(&clients);
        late.assert_served();
    }
}

#[test]
fn stop_during_a_pass_ends_it() {
    each(|owner, acceptor, endpoint| {
        let _clients = endpoint.connect_many(4);
        let control = acceptor.control();
        assert_eq!(owner.wait(SHORT), 1);
        let mut served = 0;
        for connection in acceptor.ready() {
            serve(&connection.unwrap());
            served += 1;
            control.stop();
            drop(control.pause());
        }
        assert_eq!(served, 1);
        assert_settles(owner, acceptor, State::Stopped);
    });
}

#[test]
fn end_of_a_pause_does_not_open_a_full_gate() {
    for (listener, endpoint, trigger) in matrix() {
        let gate = Gate::new(1);
        let mut owner = Owner::new();
        let mut acceptor = trigger
            .on(AnySocket(listener.try_clone().unwrap()))
            .gate(&gate)
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let clients = endpoint.connect_many(3);
        let kept = owner.take(&mut acceptor, 1);
        assert_settles(&mut owner, &mut acceptor, State::Full);
        let control = acceptor.control();
        let pause = control.pause();
        assert_settles(&mut owner, &mut acceptor, State::Paused);
        drop(pause);
        assert_settles(&mut owner, &mut acceptor, State::Full);
        // The end of the pause finds a permit that was released meanwhile.
        let pause = control.pause();
        owner.settle(&mut acceptor);
        drop(kept);
        assert_settles(&mut owner, &mut acceptor, State::Paused);
        drop(pause);
        owner.serve(&mut acceptor, 2);
        assert_all_served(&clients);
    }
}

#[test]
fn control_outlives_its_acceptor() {
    let (listener, _endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let acceptor = accept_on(&owner, listener, Trigger::Edge, None);
    let control = acceptor.control();
    let early = control.pause();
    drop(acceptor);
    drop((control.pause(), early));
    control.stop();
    control.shutdown_gracefully(epoll_acceptor::Pending::Refuse(epoll_acceptor::Refusal::Close), LONG);
    assert_eq!((control.counters().attempts, control.shutdown_report()), (0, None));
    assert_eq!(owner.wait(SHORT), 0);
}

#[test]
fn state_and_counters_are_read_from_other_threads() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, Trigger::Level, None);
    let control = acceptor.control();
    let reader = thread::spawn(move || wait_until("200 delivered", || control.counters().delivered == 200));
    let clients = endpoint.connect_many(200);
    owner.serve(&mut acceptor, 200);
    reader.join().unwrap();
    assert_all_served(&clients);
    let shown = acceptor.counters().to_string();
    assert!(shown.contains("delivered 200"), "{shown}");
    assert_eq!(acceptor.control().state(), State::Listening);
}

#[test]
fn time_in_full_grows_while_the_gate_is_full() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let gate = Gate::new(1);
    let mut owner = Owner::new();
    let builder = Trigger::Level.on(AnySocket(listener)).gate(&gate);
    let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
    let _clients = endpoint.connect_many(2);
    let kept = owner.take(&mut acceptor, 1);
    owner.settle(&mut acceptor);
    let before = acceptor.counters().time_in(State::Full);
    thread::sleep(SHORT);
    let after = acceptor.counters().time_in(State::Full);
    assert!(after > before, "{before:?} {after:?}");
    assert!(acceptor.counters().time_in(State::Listening) > Duration::ZERO);
    assert_eq!(acceptor.counters().time_in(State::Paused), Duration::ZERO);
    drop(kept);
    owner.serve(&mut acceptor, 1);
    let total = acceptor.counters().time_in(State::Full);
    thread::sleep(Duration::from_millis(2));
    assert_eq!(acceptor.counters().time_in(State::Full), total, "not while it listens");
    assert!(total >= after);
}

#[test]
fn concurrent_pauses_strand_nothing() {
    const ALL: usize = 2_000;
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let over = Arc::new(AtomicBool::new(false));
            let pausing: Vec<_> = (0..2)
                .map(|_| {
                    let (control, over) = (acceptor.control(), Arc::clone(&over));
                    thread::spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            let pause = control.pause();
                            thread::yield_now();
                            drop(pause);
                            thread::sleep(Duration::from_micros(200));
                        }
                    })
                })
                .collect();
            let clients = thread::spawn(move || {
                for _ in 0..ALL / 4 {
                    let clients = endpoint.connect_many(4);
                    assert_all_served(&clients);
                    clients.into_iter().for_each(Client::reset);
                }
            });
            owner.serve(&mut acceptor, ALL);
            clients.join().unwrap();
            over.store(true, Ordering::Relaxed);
            for thread in pausing {
                thread.join().unwrap();
            }
            assert_settles(&mut owner, &mut acceptor, State::Listening);
            assert_balanced(&acceptor);
        }
    }
}
