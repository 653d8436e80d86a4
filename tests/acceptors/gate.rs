//! The gate on real acceptors: who waits for a place gets it, from whichever thread it comes back.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use epoll_acceptor::{Acceptor, AnyListener, EpollAcceptor, Gate, State, Trigger};
use socket2::Socket;

use crate::support::{
    Client, Door, Kind, LISTENER, LONG, Owner, SHORT, TRIGGERS, assert_all_served, assert_balanced,
    done_in_child, listeners, open_descriptors, serve, until,
};

type Gated = EpollAcceptor<AnyListener<Socket>, Trigger, Gate>;

fn gated(owner: &Owner, socket: Socket, trigger: Trigger, gate: &Gate) -> Gated {
    trigger.on(AnyListener(socket)).gate(gate).register(&owner.epoll, LISTENER).unwrap()
}

/// Every kind of listener under every trigger, behind a gate of its own.
fn each(limit: u32, check: impl Fn(&mut Owner, &mut Gated, &Door, &Gate)) {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let gate = Gate::new(limit);
            let mut owner = Owner::new();
            let mut acceptor = gated(&owner, listener.try_clone().unwrap(), trigger, &gate);
            check(&mut owner, &mut acceptor, &door, &gate);
            assert_balanced(&acceptor);
        }
    }
}

fn assert_sleeps(owner: &mut Owner, acceptor: &mut Gated) {
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), State::Full);
}

#[test]
fn a_permit_dropped_on_another_thread_wakes_the_sleeping_acceptor() {
    each(2, |owner, acceptor, door, gate| {
        let clients = door.connect_many(6);
        let mut kept = owner.take(acceptor, 2);
        assert_sleeps(owner, acceptor);
        clients[2].assert_waits();
        while acceptor.counters().delivered < 6 {
            let leaves = kept.remove(0);
            thread::spawn(move || drop(leaves)).join().unwrap();
            assert!(owner.wait(Duration::ZERO) > 0, "it was rung for");
            kept.extend(acceptor.ready().map(|connection| {
                let connection = connection.unwrap();
                serve(&connection);
                connection
            }));
            assert_eq!(gate.in_use(), 2);
        }
        assert_all_served(&clients);
        drop(kept);
        assert_eq!(gate.in_use(), 0);
        owner.settle(acceptor);
    });
}

#[test]
fn a_full_acceptor_with_nothing_queued_stays_open_and_falls_asleep_at_the_next_arrival() {
    each(1, |owner, acceptor, door, _gate| {
        let first = door.connect();
        let kept = owner.take(acceptor, 1);
        owner.settle(acceptor);
        assert_eq!(acceptor.state(), State::Listening, "nobody waits for a place");
        let second = door.connect();
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_sleeps(owner, acceptor);
        drop(kept);
        owner.serve(acceptor, 1);
        assert_all_served(&[first, second]);
    });
}

#[test]
fn a_limit_of_zero_is_closed_until_it_is_raised() {
    each(0, |owner, acceptor, door, gate| {
        let clients = door.connect_many(5);
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_sleeps(owner, acceptor);
        assert_eq!(acceptor.counters().attempts, 0);
        let gate = gate.clone();
        thread::spawn(move || gate.set_limit(3)).join().unwrap();
        let kept = owner.take(acceptor, 3);
        assert_sleeps(owner, acceptor);
        drop(kept);
        owner.serve(acceptor, 2);
        assert_all_served(&clients);
    });
}

#[test]
fn a_lowered_limit_evicts_nobody_and_lets_in_nobody_until_enough_have_left() {
    each(3, |owner, acceptor, door, gate| {
        let clients = door.connect_many(5);
        let mut kept = owner.take(acceptor, 3);
        assert_sleeps(owner, acceptor);
        gate.set_limit(1);
        assert_eq!(gate.in_use(), 3);
        kept.truncate(1);
        owner.settle(acceptor);
        assert_eq!((gate.in_use(), acceptor.counters().delivered), (1, 3));
        kept.clear();
        kept.extend(owner.take(acceptor, 1));
        assert_sleeps(owner, acceptor);
        gate.set_limit(2);
        kept.extend(owner.take(acceptor, 1));
        assert_all_served(&clients);
    });
}

#[test]
fn a_permit_dropped_in_the_body_is_used_in_the_same_pass_or_a_later_one() {
    each(1, |owner, acceptor, door, gate| {
        let clients = door.connect_many(8);
        owner.serve(acceptor, 8);
        assert_all_served(&clients);
        assert_eq!(gate.in_use(), 0);
    });
}

#[test]
fn a_permit_taken_by_hand_counts_and_wakes_when_it_is_dropped() {
    each(1, |owner, acceptor, door, gate| {
        let by_hand = gate.try_acquire().unwrap();
        assert!(gate.try_acquire().is_none());
        let client = door.connect();
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_sleeps(owner, acceptor);
        thread::spawn(move || drop(by_hand)).join().unwrap();
        owner.serve(acceptor, 1);
        client.assert_served();
    });
}

#[test]
fn forgetting_the_pass_that_was_rung_for_strands_nobody() {
    each(1, |owner, acceptor, door, _gate| {
        let clients = door.connect_many(3);
        let mut kept = owner.take(acceptor, 1);
        for _ in 0..2 {
            owner.settle(acceptor);
            kept.clear();
            assert!(owner.wait(Duration::ZERO) > 0);
            std::mem::forget(acceptor.ready());
            assert!(owner.wait(Duration::ZERO) > 0, "told again");
            std::mem::forget(acceptor.ready());
            kept = owner.take(acceptor, 1);
        }
        assert_all_served(&clients);
    });
}

#[test]
fn waiting_for_idleness_ends_when_the_last_permit_is_back() {
    let (listener, door) = Kind::Tcp4.listen();
    let gate = Gate::new(4);
    let mut owner = Owner::new();
    let mut acceptor = gated(&owner, listener, Trigger::Level, &gate);
    assert!(gate.wait_idle(Some(Duration::ZERO)), "nobody is in");
    let _clients = door.connect_many(4);
    let kept = owner.take(&mut acceptor, 4);
    assert!(!gate.wait_idle(Some(Duration::ZERO)));
    assert!(!gate.wait_idle(Some(SHORT)));
    acceptor.control().stop();
    let waiters: Vec<_> = [None, Some(Duration::MAX), Some(LONG)]
        .into_iter()
        .map(|bound| {
            let gate = gate.clone();
            thread::spawn(move || gate.wait_idle(bound))
        })
        .collect();
    for connection in kept {
        thread::spawn(move || drop(connection)).join().unwrap();
    }
    for waiter in waiters {
        until("idleness", || waiter.is_finished());
        assert!(waiter.join().unwrap());
    }
}

/// What the workers of one gate count together.
#[derive(Default)]
struct Count {
    served: AtomicUsize,
    alive: AtomicUsize,
}

/// Serves until `total` are served by all; gives each connection away to a thread that drops it.
fn work(mut owner: Owner, mut acceptor: Gated, total: usize, limit: usize, count: &Arc<Count>) {
    let (give, take) = std::sync::mpsc::channel();
    let closer = {
        let count = Arc::clone(count);
        thread::spawn(move || {
            for connection in take {
                // Before the drop: no more are alive than this says.
                count.alive.fetch_sub(1, Ordering::SeqCst);
                drop(connection);
            }
        })
    };
    let begin = std::time::Instant::now();
    while count.served.load(Ordering::SeqCst) < total {
        assert!(begin.elapsed() < LONG, "{:?} {}", acceptor.state(), acceptor.counters());
        for _ in 0..owner.wait(Duration::from_millis(2)) {
            for connection in acceptor.ready() {
                let connection = connection.unwrap();
                assert!(count.alive.fetch_add(1, Ordering::SeqCst) < limit, "more than the limit");
                serve(&connection);
                count.served.fetch_add(1, Ordering::SeqCst);
                give.send(connection).unwrap();
            }
        }
    }
    drop(give);
    closer.join().unwrap();
    owner.settle(&mut acceptor);
    assert_balanced(&acceptor);
}

fn clients_of(door: &Door, count: usize) -> thread::JoinHandle<Vec<Client>> {
    let door = door.clone();
    thread::spawn(move || door.connect_many(count))
}

#[test]
fn two_acceptors_on_one_gate_serve_everyone_and_keep_the_limit() {
    const EACH: usize = 400;
    for (one, two) in [(Kind::Tcp4, Kind::UnixStream), (Kind::Tcp6, Kind::Tcp4)] {
        for limit in [1, 3] {
            let gate = Gate::new(limit);
            let count = Arc::new(Count::default());
            let doors: Vec<_> = [(one, Trigger::Level), (two, Trigger::Edge)]
                .into_iter()
                .map(|(kind, trigger)| {
                    let (listener, door) = kind.listen();
                    let owner = Owner::new();
                    let acceptor = gated(&owner, listener, trigger, &gate);
                    let count = Arc::clone(&count);
                    let limit = usize::try_from(limit).unwrap();
                    (thread::spawn(move || work(owner, acceptor, 2 * EACH, limit, &count)), door)
                })
                .collect();
            let clients: Vec<_> = doors.iter().map(|(_, door)| clients_of(door, EACH)).collect();
            for (worker, _) in doors {
                worker.join().unwrap();
            }
            for clients in clients {
                assert_all_served(&clients.join().unwrap());
            }
            assert!(gate.wait_idle(Some(LONG)));
        }
    }
}

#[test]
fn several_workers_on_one_listener_and_one_gate_serve_everyone_and_keep_the_limit() {
    const ALL: usize = 600;
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for triggers in
            [[Trigger::Level; 3], [Trigger::Edge; 3], [Trigger::Level, Trigger::Edge, Trigger::Level]]
        {
            let gate = Gate::new(2);
            let count = Arc::new(Count::default());
            let (listener, door) = kind.listen();
            let workers: Vec<_> = triggers
                .into_iter()
                .map(|trigger| {
                    let owner = Owner::new();
                    let acceptor = gated(&owner, listener.try_clone().unwrap(), trigger, &gate);
                    let count = Arc::clone(&count);
                    thread::spawn(move || work(owner, acceptor, ALL, 2, &count))
                })
                .collect();
            let clients = clients_of(&door, ALL);
            for worker in workers {
                worker.join().unwrap();
            }
            assert_all_served(&clients.join().unwrap());
            assert!(gate.wait_idle(Some(LONG)));
            assert_eq!(gate.in_use(), 0);
        }
    }
}

#[test]
fn an_acceptor_that_is_dropped_while_it_stands_in_line_holds_up_nobody() {
    let gate = Gate::new(1);
    let mut owners: Vec<_> = (0..3)
        .map(|_| {
            let (listener, door) = Kind::Tcp4.listen();
            let owner = Owner::new();
            let acceptor = gated(&owner, listener, Trigger::Level, &gate);
            (owner, acceptor, door)
        })
        .collect();
    let permit = gate.try_acquire().unwrap();
    let clients: Vec<_> = owners.iter().map(|(_, _, door)| door.connect()).collect();
    for (owner, acceptor, _) in &mut owners {
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_eq!(acceptor.state(), State::Full);
    }
    drop(owners.remove(0));
    owners[0].1.control().stop();
    drop(permit);
    let (owner, acceptor, _) = &mut owners[1];
    owner.serve(acceptor, 1);
    clients[2].assert_served();
    let (owner, acceptor, _) = &mut owners[0];
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), State::Stopped);
    clients[1].assert_waits();
}

#[test]
fn a_connection_keeps_its_permit_wherever_it_goes() {
    let (listener, door) = Kind::Tcp4.listen();
    let gate = Gate::new(4);
    let mut owner = Owner::new();
    let mut acceptor = gated(&owner, listener, Trigger::Level, &gate);
    let client = door.connect();
    let connection = owner.take(&mut acceptor, 1).remove(0);
    assert_eq!(gate.in_use(), 1);
    let connection = connection.map(std::net::TcpStream::from);
    assert_eq!(gate.in_use(), 1);
    let connection = connection.try_map(|stream| stream.try_clone().map(|_| stream)).unwrap();
    assert_eq!(gate.in_use(), 1);
    assert!(connection.as_fd().try_clone_to_owned().is_ok());
    let (stream, permit) = connection.into_parts();
    drop(stream);
    assert_eq!(gate.in_use(), 1);
    drop(permit);
    assert_eq!(gate.in_use(), 0);
    client.assert_served();
}

/// The moment between finding the gate full and standing in line: a place that comes back in it rings nobody.
#[test]
fn a_permit_dropped_while_the_acceptor_falls_asleep_is_not_missed() {
    const ALL: usize = 4_000;
    for trigger in TRIGGERS {
        let (listener, door) = Kind::UnixStream.listen();
        let gate = Gate::new(1);
        let mut owner = Owner::new();
        let mut acceptor = gated(&owner, listener, trigger, &gate);
        let (give, take) = std::sync::mpsc::channel();
        let closer = thread::spawn(move || {
            for (connection, number) in take.into_iter().zip(0_u32..) {
                // Now here, now there in what the owner does meanwhile.
                for _ in 0..number % 64 * 40 {
                    std::hint::spin_loop();
                }
                drop(connection);
            }
        });
        let mut clients = VecDeque::new();
        let mut served = 0;
        while served < ALL {
            while clients.len() < 10 {
                clients.push_back(door.connect());
            }
            // Ten wait, and only the gate's own ring can wake one that sleeps on it.
            let due = owner.wait(Duration::from_secs(2));
            assert!(due > 0, "stranded: {:?} {gate:?} {}", acceptor.state(), acceptor.counters());
            for _ in 0..due {
                for connection in acceptor.ready() {
                    give.send(connection.unwrap()).unwrap();
                    drop(clients.pop_front());
                    served += 1;
                }
            }
        }
        drop(give);
        closer.join().unwrap();
    }
}

#[test]
fn who_left_the_line_is_neither_rung_nor_kept() {
    if done_in_child("gate::who_left_the_line_is_neither_rung_nor_kept") {
        return;
    }
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        let gate = Gate::new(1);
        let mut owner = Owner::new();
        let before = open_descriptors();
        let permit = gate.try_acquire().unwrap();
        let client = door.connect();
        let full = |owner: &mut Owner| {
            let mut acceptor = gated(owner, listener.try_clone().unwrap(), trigger, &gate);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Full);
            acceptor
        };
        drop(full(&mut owner));
        assert_eq!(open_descriptors(), before + 1, "the client's alone");
        let (mut paused, mut other) = (full(&mut owner), Owner::new());
        let mut stopped = full(&mut other);
        paused.control().pause();
        stopped.control().stop();
        owner.settle(&mut paused);
        other.settle(&mut stopped);
        drop(permit);
        assert_eq!((owner.wait(SHORT), other.wait(SHORT)), (0, 0));
        client.assert_waits();
    }
}
