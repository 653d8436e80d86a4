//! The gate on real acceptors: a released permit goes to the acceptor that waits, from whichever thread.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use epoll_acceptor::filter::Reservation;
use epoll_acceptor::{Acceptor, Filter, Gate, Pending, Refusal, State, Trigger};
use socket2::Socket;

use crate::support::{
    Any, AnySocket, Client, Endpoint, Kind, LISTENER, LONG, Owner, SHORT, TRIGGERS, assert_all_served,
    assert_balanced, done_in_child, matrix, open_descriptors, serve, wait_until,
};

fn gated(owner: &Owner, socket: Socket, trigger: Trigger, gate: &Gate) -> Any {
    trigger.on(AnySocket(socket)).gate(gate).register(&owner.epoll, LISTENER).unwrap()
}

/// Runs a test for every kind of listener and every trigger, each with a gate of its own.
fn each(limit: u32, test: impl Fn(&mut Owner, &mut Any, &Endpoint, &Gate)) {
    for (listener, endpoint, trigger) in matrix() {
        let gate = Gate::new(limit);
        let mut owner = Owner::new();
        let mut acceptor = gated(&owner, listener.try_clone().unwrap(), trigger, &gate);
        test(&mut owner, &mut acceptor, &endpoint, &gate);
        assert_balanced(&acceptor);
    }
}

fn assert_full(owner: &mut Owner, acceptor: &mut Any) {
    owner.settle(acceptor);
    assert_eq!(acceptor.state(), State::Full);
}

/// Its permits note, when they are dropped, how many of the gate's are in use.
struct Observer(Gate, Arc<AtomicUsize>);

impl Filter for Observer {
    type Permit = Observed;

    fn reserve(&self) -> Reservation<Observed> {
        Reservation::Granted(Observed(self.0.clone(), Arc::clone(&self.1)))
    }
}

struct Observed(Gate, Arc<AtomicUsize>);

impl Drop for Observed {
    fn drop(&mut self) {
        self.1.store(self.0.in_use() as usize, Ordering::Relaxed);
    }
}

#[test]
fn filters_permits_are_released_before_the_gates() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let (gate, seen) = (Gate::new(1), Arc::new(AtomicUsize::new(9)));
    let mut acceptor = Trigger::Level
        .on(AnySocket(listener))
        .gate(&gate)
        .filter(Observer(gate.clone(), Arc::clone(&seen)))
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let _client = endpoint.connect();
    assert_eq!(owner.wait(LONG), 1);
    let connection = acceptor.ready().next().unwrap().unwrap();
    drop(connection);
    assert_eq!(seen.load(Ordering::Relaxed), 1, "who gets the gate's permit finds the filters' released");
    assert_eq!(gate.in_use(), 0);
}

#[test]
fn release_on_another_thread_wakes_the_acceptor() {
    each(2, |owner, acceptor, endpoint, gate| {
        let clients = endpoint.connect_many(6);
        let mut kept = owner.take(acceptor, 2);
        assert_full(owner, acceptor);
        clients[2].assert_pending();
        while acceptor.counters().delivered < 6 {
            let closing = kept.remove(0);
            thread::spawn(move || drop(closing)).join().unwrap();
            assert!(owner.wait(Duration::ZERO) > 0, "the release wakes it");
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
fn full_gate_blocks_at_the_next_arrival() {
    each(1, |owner, acceptor, endpoint, _gate| {
        let first = endpoint.connect();
        let kept = owner.take(acceptor, 1);
        owner.settle(acceptor);
        assert_eq!(acceptor.state(), State::Listening, "no connection is pending");
        let second = endpoint.connect();
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_full(owner, acceptor);
        drop(kept);
        owner.serve(acceptor, 1);
        assert_all_served(&[first, second]);
    });
}

#[test]
fn limit_of_zero_is_closed_until_raised() {
    each(0, |owner, acceptor, endpoint, gate| {
        let clients = endpoint.connect_many(5);
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_full(owner, acceptor);
        assert_eq!(acceptor.counters().attempts, 0);
        let gate = gate.clone();
        thread::spawn(move || gate.set_limit(3)).join().unwrap();
        let kept = owner.take(acceptor, 3);
        assert_full(owner, acceptor);
        drop(kept);
        owner.serve(acceptor, 2);
        assert_all_served(&clients);
    });
}

#[test]
fn lowered_limit_closes_no_connection() {
    each(3, |owner, acceptor, endpoint, gate| {
        let clients = endpoint.connect_many(5);
        let mut kept = owner.take(acceptor, 3);
        assert_full(owner, acceptor);
        gate.set_limit(1);
        assert_eq!(gate.in_use(), 3);
        kept.truncate(1);
        owner.settle(acceptor);
        assert_eq!((gate.in_use(), acceptor.counters().delivered), (1, 3));
        kept.clear();
        kept.extend(owner.take(acceptor, 1));
        assert_full(owner, acceptor);
        gate.set_limit(2);
        kept.extend(owner.take(acceptor, 1));
        assert_all_served(&clients);
    });
}

#[test]
fn release_in_the_loop_body_is_used() {
    each(1, |owner, acceptor, endpoint, gate| {
        let clients = endpoint.connect_many(8);
        owner.serve(acceptor, 8);
        assert_all_served(&clients);
        assert_eq!(gate.in_use(), 0);
    });
}

#[test]
fn acquired_permit_counts_and_wakes() {
    each(1, |owner, acceptor, endpoint, gate| {
        let acquired = gate.try_acquire().unwrap();
        assert!(gate.try_acquire().is_none());
        let client = endpoint.connect();
        assert_eq!(owner.wait(SHORT), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_full(owner, acceptor);
        thread::spawn(move || drop(acquired)).join().unwrap();
        owner.serve(acceptor, 1);
        client.assert_served();
    });
}

#[test]
fn forgotten_pass_hands_its_permit_on() {
    each(1, |owner, acceptor, endpoint, _gate| {
        let clients = endpoint.connect_many(3);
        let mut kept = owner.take(acceptor, 1);
        for _ in 0..2 {
            owner.settle(acceptor);
            kept.clear();
            assert!(owner.wait(Duration::ZERO) > 0);
            std::mem::forget(acceptor.ready());
            assert!(owner.wait(Duration::ZERO) > 0, "another wakeup");
            std::mem::forget(acceptor.ready());
            kept = owner.take(acceptor, 1);
        }
        assert_all_served(&clients);
    });
}

#[test]
fn wait_idle_ends_with_the_last_release() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let gate = Gate::new(4);
    let mut owner = Owner::new();
    let mut acceptor = gated(&owner, listener, Trigger::Level, &gate);
    assert!(gate.wait_idle(Some(Duration::ZERO)), "no permit is in use");
    let _clients = endpoint.connect_many(4);
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
        wait_until("the gate is idle", || waiter.is_finished());
        assert!(waiter.join().unwrap());
    }
}

/// The counts of all workers of one gate.
#[derive(Default)]
struct Count {
    served: AtomicUsize,
    alive: AtomicUsize,
}

/// Serves until all workers have served `total` connections; a thread drops them.
fn work(mut owner: Owner, mut acceptor: Any, total: usize, limit: usize, count: &Arc<Count>) {
    let (sender, connections) = std::sync::mpsc::channel();
    let closer = {
        let count = Arc::clone(count);
        thread::spawn(move || {
            for connection in connections {
                // Before the drop, so that the count is an upper bound.
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
                sender.send(connection).unwrap();
            }
        }
    }
    drop(sender);
    closer.join().unwrap();
    owner.settle(&mut acceptor);
    assert_balanced(&acceptor);
}

fn clients_of(endpoint: &Endpoint, count: usize) -> thread::JoinHandle<Vec<Client>> {
    let endpoint = endpoint.clone();
    thread::spawn(move || endpoint.connect_many(count))
}

#[test]
fn two_listeners_share_one_limit() {
    const EACH: usize = 400;
    for (one, two) in [(Kind::Tcp4, Kind::UnixStream), (Kind::Tcp6, Kind::Tcp4)] {
        for limit in [1, 3] {
            let gate = Gate::new(limit);
            let count = Arc::new(Count::default());
            let endpoints: Vec<_> = [(one, Trigger::Level), (two, Trigger::Edge)]
                .into_iter()
                .map(|(kind, trigger)| {
                    let (listener, endpoint) = kind.listen();
                    let owner = Owner::new();
                    let acceptor = gated(&owner, listener, trigger, &gate);
                    let count = Arc::clone(&count);
                    let limit = usize::try_from(limit).unwrap();
                    (thread::spawn(move || work(owner, acceptor, 2 * EACH, limit, &count)), endpoint)
                })
                .collect();
            let clients: Vec<_> = endpoints.iter().map(|(_, endpoint)| clients_of(endpoint, EACH)).collect();
            for (worker, _) in endpoints {
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
fn workers_on_one_listener_share_one_limit() {
    const ALL: usize = 600;
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for triggers in
            [[Trigger::Level; 3], [Trigger::Edge; 3], [Trigger::Level, Trigger::Edge, Trigger::Level]]
        {
            let gate = Gate::new(2);
            let count = Arc::new(Count::default());
            let (listener, endpoint) = kind.listen();
            let workers: Vec<_> = triggers
                .into_iter()
                .map(|trigger| {
                    let owner = Owner::new();
                    let acceptor = gated(&owner, listener.try_clone().unwrap(), trigger, &gate);
                    let count = Arc::clone(&count);
                    thread::spawn(move || work(owner, acceptor, ALL, 2, &count))
                })
                .collect();
            let clients = clients_of(&endpoint, ALL);
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
fn dropped_waiter_leaves_the_wait_queue() {
    let gate = Gate::new(1);
    let mut owners: Vec<_> = (0..3)
        .map(|_| {
            let (listener, endpoint) = Kind::Tcp4.listen();
            let owner = Owner::new();
            let acceptor = gated(&owner, listener, Trigger::Level, &gate);
            (owner, acceptor, endpoint)
        })
        .collect();
    let permit = gate.try_acquire().unwrap();
    let clients: Vec<_> = owners.iter().map(|(_, _, endpoint)| endpoint.connect()).collect();
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
    clients[1].assert_pending();
}

#[test]
fn connection_keeps_its_permit() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let gate = Gate::new(4);
    let mut owner = Owner::new();
    let mut acceptor = gated(&owner, listener, Trigger::Level, &gate);
    let client = endpoint.connect();
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

/// A release between the failed acquire and the entry into the wait queue wakes no waiter.
#[test]
fn release_while_the_acceptor_blocks_is_not_lost() {
    const ALL: usize = 4_000;
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::UnixStream.listen();
        let gate = Gate::new(1);
        let mut owner = Owner::new();
        let mut acceptor = gated(&owner, listener, trigger, &gate);
        let (sender, connections) = std::sync::mpsc::channel();
        let closer = thread::spawn(move || {
            for (connection, number) in connections.into_iter().zip(0_u32..) {
                // Hits different points of what the owner does meanwhile.
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
                clients.push_back(endpoint.connect());
            }
            // Ten are pending, and only the gate can wake the blocked acceptor.
            let due = owner.wait(Duration::from_secs(2));
            assert!(due > 0, "stranded: {:?} {gate:?} {}", acceptor.state(), acceptor.counters());
            for _ in 0..due {
                for connection in acceptor.ready() {
                    sender.send(connection.unwrap()).unwrap();
                    drop(clients.pop_front());
                    served += 1;
                }
            }
        }
        drop(sender);
        closer.join().unwrap();
    }
}

#[test]
fn waiter_that_left_is_neither_woken_nor_kept() {
    if done_in_child("gate::waiter_that_left_is_neither_woken_nor_kept") {
        return;
    }
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let gate = Gate::new(1);
        let mut owner = Owner::new();
        let before = open_descriptors();
        let permit = gate.try_acquire().unwrap();
        let client = endpoint.connect();
        let full = |owner: &mut Owner| {
            let mut acceptor = gated(owner, listener.try_clone().unwrap(), trigger, &gate);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.state(), State::Full);
            acceptor
        };
        drop(full(&mut owner));
        assert_eq!(open_descriptors(), before + 1, "the client");
        let (mut paused, mut other) = (full(&mut owner), Owner::new());
        let mut stopped = full(&mut other);
        let _pause = paused.control().pause();
        stopped.control().stop();
        owner.settle(&mut paused);
        other.settle(&mut stopped);
        drop(permit);
        assert_eq!((owner.wait(SHORT), other.wait(SHORT)), (0, 0));
        client.assert_pending();
    }
}

/// A full acceptor cannot accept to find out that its queue is empty, and a Unix listener that is shut down is readable
/// forever. Its shutdown ends at once, not at the deadline.
#[test]
fn full_acceptor_without_queue_shuts_down_at_once() {
    for kind in [Kind::Tcp4, Kind::UnixStream, Kind::UnixSeqpacket] {
        for trigger in TRIGGERS {
            for taken_elsewhere in [false, true] {
                let (listener, endpoint) = kind.listen();
                let elsewhere = listener.try_clone().unwrap();
                let gate = Gate::new(1);
                let mut owner = Owner::new();
                let builder = trigger.on(AnySocket(listener)).gate(&gate).handshake_grace(Duration::ZERO);
                let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
                let _client = endpoint.connect();
                let _kept = owner.take(&mut acceptor, 1);
                let control = acceptor.control();
                if taken_elsewhere {
                    let _second = endpoint.connect();
                    owner.until(
                        "full",
                        || _ = acceptor.drain(drop).unwrap(),
                        || control.state() == State::Full,
                    );
                    drop(elsewhere.accept().unwrap());
                }
                control.shutdown_gracefully(Pending::Serve(Refusal::Reset), 2 * LONG);
                owner.until(
                    "the shutdown ends",
                    || _ = acceptor.drain(drop).unwrap(),
                    || control.state() == State::Stopped,
                );
                let report = control.shutdown_report().unwrap();
                assert_eq!((report.served, report.refused, report.abandoned), (0, 0, Some(0)), "{kind:?}");
            }
        }
    }
}
