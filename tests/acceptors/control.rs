//! Pause, resume and stop: from any thread, at any moment, as often as one likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use epoll_acceptor::{Acceptor, AnyListener, Control, Gate, State, Trigger};

use crate::support::{
    Any, Door, Kind, LISTENER, LONG, Owner, PROOFS, SHORT, TRIGGERS, accept_on, assert_all_served,
    assert_balanced, listeners, serve, until,
};

fn each(check: impl Fn(&mut Owner, &mut Any, &Door)) {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, proof);
                check(&mut owner, &mut acceptor, &door);
                assert_balanced(&acceptor);
                take_the_rest(acceptor);
            }
        }
    }
}

/// The next case finds the queue empty.
fn take_the_rest(acceptor: Any) {
    let listener = acceptor.into_listener();
    while epoll_acceptor::has_pending(&listener).unwrap() {
        drop(listener.0.accept().unwrap());
    }
}

fn elsewhere(control: &Control, command: impl FnOnce(&Control) + Send + 'static) {
    let control = control.clone();
    thread::spawn(move || command(&control)).join().unwrap();
}

/// It neither serves nor is woken.
fn assert_rests(owner: &mut Owner, acceptor: &mut Any, state: State) {
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), state);
}

#[test]
fn paused_from_another_thread_it_serves_nobody_until_it_is_resumed() {
    each(|owner, acceptor, door| {
        let control = acceptor.control();
        elsewhere(&control, Control::pause);
        assert_rests(owner, acceptor, State::Paused);
        let clients = door.connect_many(3);
        assert_rests(owner, acceptor, State::Paused);
        assert_eq!(acceptor.counters().attempts, 0);
        elsewhere(&control, Control::resume);
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
        assert_eq!(acceptor.state(), State::Listening);
        assert_eq!(acceptor.counters().pauses, 1);
    });
}

#[test]
fn paused_with_connections_queued_it_keeps_them_in_the_queue() {
    each(|owner, acceptor, door| {
        let clients = door.connect_many(3);
        acceptor.control().pause();
        assert_rests(owner, acceptor, State::Paused);
        clients[0].assert_waits();
        acceptor.control().resume();
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
    });
}

#[test]
fn paused_in_the_middle_of_a_pass_it_takes_no_further_connection() {
    each(|owner, acceptor, door| {
        let clients = door.connect_many(4);
        let control = acceptor.control();
        assert_eq!(owner.wait(SHORT), 1);
        let mut served = 0;
        for connection in acceptor.ready() {
            serve(&connection.unwrap());
            served += 1;
            control.pause();
        }
        assert_eq!(served, 1);
        assert_rests(owner, acceptor, State::Paused);
        control.resume();
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
    });
}

#[test]
fn paused_and_resumed_in_the_body_it_goes_on() {
    each(|owner, acceptor, door| {
        let clients = door.connect_many(4);
        let control = acceptor.control();
        let mut served = 0;
        let begin = std::time::Instant::now();
        while served < 4 {
            assert!(begin.elapsed() < LONG);
            for _ in 0..owner.wait(SHORT) {
                for connection in acceptor.ready() {
                    serve(&connection.unwrap());
                    served += 1;
                    control.pause();
                    control.resume();
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
fn a_pass_forgotten_under_pause_strands_nobody() {
    each(|owner, acceptor, door| {
        let clients = door.connect_many(3);
        let control = acceptor.control();
        control.pause();
        assert!(owner.wait(SHORT) > 0);
        std::mem::forget(acceptor.ready());
        control.resume();
        assert!(owner.wait(SHORT) > 0);
        std::mem::forget(acceptor.ready());
        owner.serve(acceptor, 3);
        assert_all_served(&clients);
    });
}

#[test]
fn commands_are_idempotent() {
    each(|owner, acceptor, door| {
        let control = acceptor.control();
        let clients = door.connect_many(2);
        control.resume();
        control.pause();
        control.pause();
        control.clone().pause();
        assert_rests(owner, acceptor, State::Paused);
        control.pause();
        assert_rests(owner, acceptor, State::Paused);
        assert_eq!(acceptor.counters().pauses, 1);
        control.resume();
        control.resume();
        owner.serve(acceptor, 2);
        assert_all_served(&clients);
        control.stop();
        control.stop();
        assert_rests(owner, acceptor, State::Stopped);
    });
}

#[test]
fn stop_beats_resume_and_leaves_the_queue_to_the_next_owner() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            let clients = door.connect_many(3);
            let control = acceptor.control();
            control.pause();
            elsewhere(&control, |control| {
                control.stop();
                control.resume();
            });
            assert_rests(&mut owner, &mut acceptor, State::Stopped);
            control.resume();
            assert_rests(&mut owner, &mut acceptor, State::Stopped);
            assert_eq!(acceptor.counters().attempts, 0);
            assert_eq!(owner.registrations().len(), 2, "the bell and the alarm");
            let late = door.connect();
            let listener = acceptor.into_listener();
            assert_eq!(owner.registrations(), []);
            let mut next = accept_on(&owner, listener.0, trigger, None);
            owner.serve(&mut next, 4);
            assert_all_served(&clients);
            late.assert_served();
        }
    }
}

#[test]
fn stopped_in_the_middle_of_a_pass_it_takes_no_further_connection() {
    each(|owner, acceptor, door| {
        let _clients = door.connect_many(4);
        let control = acceptor.control();
        assert_eq!(owner.wait(SHORT), 1);
        let mut served = 0;
        for connection in acceptor.ready() {
            serve(&connection.unwrap());
            served += 1;
            control.stop();
            control.resume();
        }
        assert_eq!(served, 1);
        assert_rests(owner, acceptor, State::Stopped);
    });
}

#[test]
fn resume_takes_back_the_pause_and_not_the_full_gate() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let gate = Gate::new(1);
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnyListener(listener.try_clone().unwrap()))
                .gate(&gate)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let clients = door.connect_many(3);
            let kept = owner.take(&mut acceptor, 1);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Full);
            let control = acceptor.control();
            control.pause();
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Paused);
            control.resume();
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Full);
            // A place that comes back under pause is found by the resume.
            control.pause();
            owner.settle(&mut acceptor);
            drop(kept);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Paused);
            control.resume();
            owner.serve(&mut acceptor, 2);
            assert_all_served(&clients);
        }
    }
}

#[test]
fn a_handle_outlives_its_acceptor_and_does_nothing() {
    let (listener, _door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let acceptor = accept_on(&owner, listener, Trigger::Edge, None);
    let control = acceptor.control();
    drop(acceptor);
    control.pause();
    control.resume();
    control.stop();
    assert_eq!(control.counters().attempts, 0);
    assert_eq!(owner.wait(SHORT), 0);
}

#[test]
fn state_and_counters_can_be_read_from_another_thread_while_it_works() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, Trigger::Level, None);
    let control = acceptor.control();
    let reader = thread::spawn(move || until("200 delivered", || control.counters().delivered == 200));
    let clients = door.connect_many(200);
    owner.serve(&mut acceptor, 200);
    reader.join().unwrap();
    assert_all_served(&clients);
    let shown = acceptor.counters().to_string();
    assert!(shown.contains("delivered 200"), "{shown}");
    assert_eq!(acceptor.control().state(), State::Listening);
}

#[test]
fn pauses_and_resumes_from_two_threads_at_any_moment_strand_nobody() {
    const ALL: usize = 2_000;
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let over = Arc::new(AtomicBool::new(false));
            let meddlers: Vec<_> = (0..2)
                .map(|_| {
                    let (control, over) = (acceptor.control(), Arc::clone(&over));
                    thread::spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            control.pause();
                            thread::yield_now();
                            control.resume();
                            thread::sleep(Duration::from_micros(200));
                        }
                    })
                })
                .collect();
            let clients = thread::spawn(move || {
                for _ in 0..ALL / 4 {
                    let clients = door.connect_many(4);
                    assert_all_served(&clients);
                    clients.into_iter().for_each(crate::support::Client::reset);
                }
            });
            owner.serve(&mut acceptor, ALL);
            clients.join().unwrap();
            over.store(true, Ordering::Relaxed);
            for meddler in meddlers {
                meddler.join().unwrap();
            }
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Listening);
            assert_balanced(&acceptor);
        }
    }
}
