//! Rates on the real kernel: how fast connections come in, and how fast they are refused.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use epoll_acceptor::{
    Acceptor, Admission, AnyListener, ConnectionInfo, Gate, RateLimit, Refusal, State, WhenFull,
};

use crate::support::{
    Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_all_served, assert_balanced, listeners,
};

/// How many of so many a second, and so many at once, the time since then allows.
fn allowed(begin: Instant, per_second: u64, burst: u64) -> u64 {
    burst + u64::try_from(begin.elapsed().as_millis()).unwrap() * per_second / 1000 + 1
}

#[test]
fn who_comes_too_fast_waits_and_is_served_by_the_timer() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let begin = Instant::now();
            let rate = RateLimit::per_second(200).burst(2);
            let mut owner = Owner::new();
            let listener = AnyListener(listener.try_clone().unwrap());
            let mut acceptor = trigger.on(listener).admission(rate).register(&owner.epoll, LISTENER).unwrap();
            let clients = door.connect_many(12);
            let control = acceptor.control();
            let mut throttled = false;
            owner.until(
                "twelve by a rate",
                || {
                    acceptor.drain(|connection| crate::support::serve(&connection)).unwrap();
                    let delivered = acceptor.counters().delivered;
                    assert!(delivered <= allowed(begin, 200, 2), "{delivered} in {:?}", begin.elapsed());
                    throttled |= acceptor.state() == State::Throttled;
                },
                || control.counters().delivered == 12,
            );
            assert!(throttled && control.counters().throttles >= 3, "{}", control.counters());
            // One wake-up for each of them, and one for what came first.
            assert!(owner.wakes <= 14, "{} wakes: {}", owner.wakes, control.counters());
            assert_all_served(&clients);
            owner.settle(&mut acceptor);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn who_comes_too_fast_is_refused_if_that_is_the_answer() {
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        let rate = RateLimit::per_second(1).burst(3).when_exceeded(WhenFull::Shed(Refusal::Reset));
        let mut owner = Owner::new();
        let mut acceptor =
            trigger.on(AnyListener(listener)).admission(rate).register(&owner.epoll, LISTENER).unwrap();
        let clients = door.connect_many(10);
        let control = acceptor.control();
        owner.until(
            "ten by a rate of three",
            || {
                acceptor.drain(|connection| crate::support::serve(&connection)).unwrap();
            },
            || control.counters().delivered + control.counters().refused == 10,
        );
        let counters = control.counters();
        // More than three only if this took seconds.
        assert!((3..=5).contains(&counters.delivered), "{counters}");
        assert_eq!(counters.refused_rate, counters.refused, "{counters}");
        let served = clients.iter().filter(|client| client.read_within(LONG) == Read::Served).count();
        assert_eq!(served as u64, counters.delivered);
        assert_balanced(&acceptor);
    }
}

#[test]
fn refusals_have_a_rate_of_their_own_and_nobody_spins_above_it() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let begin = Instant::now();
            let gate = Gate::new(0).when_full(WhenFull::Shed(Refusal::Close));
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnyListener(listener.try_clone().unwrap()))
                .gate(&gate)
                .refuse_at_most(100, 2)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let clients = door.connect_many(8);
            let control = acceptor.control();
            owner.until(
                "eight refusals",
                || {
                    assert_eq!(acceptor.drain(drop).unwrap(), 0);
                    let refused = acceptor.counters().refused;
                    assert!(refused <= allowed(begin, 100, 2), "{refused} in {:?}", begin.elapsed());
                },
                || control.counters().refused == 8,
            );
            let counters = control.counters();
            assert!(owner.wakes <= 10, "{} wakes: {counters}", owner.wakes);
            assert_eq!((counters.attempts, counters.refused_full), (8, 8), "{counters}");
            for client in &clients {
                assert_ne!(client.read_within(LONG), Read::Served);
            }
            // Room comes up while it holds back: the next client is let in, though not at once.
            gate.set_limit(1);
            let client = door.connect();
            owner.serve(&mut acceptor, 1);
            client.assert_served();
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn a_gate_and_a_rate_hold_together() {
    for trigger in TRIGGERS {
        let begin = Instant::now();
        let (listener, door) = Kind::Tcp4.listen();
        let gate = Gate::new(3);
        let policy = gate.clone().and(RateLimit::per_second(500).burst(1));
        let mut owner = Owner::new();
        let mut acceptor =
            trigger.on(AnyListener(listener)).admission(policy).register(&owner.epoll, LISTENER).unwrap();
        let clients = door.connect_many(9);
        for _ in 0..3 {
            let kept = owner.take(&mut acceptor, 3);
            assert_eq!(gate.in_use(), 3);
            assert!(acceptor.counters().delivered <= allowed(begin, 500, 1));
            drop(kept);
        }
        assert_all_served(&clients);
        owner.settle(&mut acceptor);
        assert_eq!((gate.in_use(), acceptor.state()), (0, State::Listening));
        assert_balanced(&acceptor);
    }
}

#[test]
fn paused_and_stopped_while_it_is_throttled() {
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        // The next would come in after minutes.
        let rate = RateLimit::per_second(1).burst(1);
        while matches!(rate.reserve(), epoll_acceptor::Reserve::Room(_)) {}
        let mut owner = Owner::new();
        let mut acceptor = trigger
            .on(AnyListener(listener))
            .admission(Gate::new(5).and(rate.clone()))
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let control = acceptor.control();
        let clients = door.connect_many(2);
        owner.until(
            "throttled",
            || assert_eq!(acceptor.drain(drop).unwrap(), 0),
            || control.state() == State::Throttled,
        );
        control.pause();
        owner.until(
            "paused",
            || assert_eq!(acceptor.drain(drop).unwrap(), 0),
            || control.state() == State::Paused,
        );
        control.resume();
        owner.serve(&mut acceptor, 1);
        control.stop();
        owner.until(
            "stopped",
            || assert_eq!(acceptor.drain(drop).unwrap(), 0),
            || control.state() == State::Stopped,
        );
        clients[0].assert_served();
        clients[1].assert_waits();
        assert_balanced(&acceptor);
    }
}

/// A policy that asks for everything there is to know.
#[derive(Clone, Copy)]
struct Curious(bool);

impl Admission for Curious {
    type Permit = Option<(Option<std::net::SocketAddr>, Option<Duration>, Option<u32>)>;

    fn reserve(&self) -> epoll_acceptor::Reserve<Self::Permit> {
        epoll_acceptor::Reserve::Room(None)
    }

    fn admit(
        &self,
        newcomer: &dyn ConnectionInfo,
        permit: &mut Self::Permit,
    ) -> Result<(), epoll_acceptor::Rejection> {
        let user = newcomer.credentials().map(|credentials| credentials.uid);
        *permit = Some((newcomer.peer(), newcomer.queued(), user));
        Ok(())
    }

    fn wants_peer(&self) -> bool {
        self.0
    }

    fn cancel(&self, _: Self::Permit) {}

    fn stand(
        &self,
        _: &std::sync::Arc<epoll_acceptor::admission::Bell>,
        until: epoll_acceptor::Until,
    ) -> epoll_acceptor::Line {
        if until == epoll_acceptor::Until::Room {
            epoll_acceptor::Line::Room
        } else {
            epoll_acceptor::Line::Standing
        }
    }

    fn leave(&self, _: &std::sync::Arc<epoll_acceptor::admission::Bell>) -> Option<Self::Permit> {
        None
    }
}

#[test]
fn a_newcomer_tells_who_it_is_where_the_kernel_can() {
    for (listener, door) in listeners() {
        for beforehand in [true, false] {
            let mut owner = Owner::new();
            let mut acceptor = epoll_acceptor::LevelTriggered::on(AnyListener(listener.try_clone().unwrap()))
                .admission(Curious(beforehand))
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let (stays, goes) = (door.connect(), door.connect());
            let theirs = |client: &crate::support::Client| client.0.local_addr().unwrap().as_socket();
            let addresses = [theirs(&stays), theirs(&goes)];
            goes.reset();
            // A pass takes the reset one as well: its owner finds out when it reads.
            let kept = owner.take(&mut acceptor, 2);
            for (n, connection) in kept.into_iter().enumerate() {
                let (_, told) = connection.into_parts();
                let (peer, queued, user) = told.expect("it was admitted");
                let is_unix = door.kind.is_unix();
                // Of one that was reset the address is had with the accept, or not at all.
                let known = !is_unix && (beforehand || n == 0);
                assert_eq!(peer, if known { addresses[n] } else { None }, "{:?} {beforehand} {n}", door.kind);
                assert_eq!(queued.is_some(), !is_unix, "{:?}", door.kind);
                let me = nix::unistd::geteuid().as_raw();
                assert_eq!(user, is_unix.then_some(me), "{:?}", door.kind);
            }
        }
    }
}

#[test]
fn a_v4_peer_of_a_dual_stack_listener_is_given_as_v4() {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.bind(&std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
    socket.listen(16).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    for beforehand in [true, false] {
        let mut owner = Owner::new();
        let mut acceptor = epoll_acceptor::LevelTriggered::on(AnyListener(socket.try_clone().unwrap()))
            .admission(Curious(beforehand))
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let connection = owner.take(&mut acceptor, 1).remove(0);
        assert!(connection.as_fd().try_clone_to_owned().is_ok());
        let peer = connection.into_parts().1.expect("admitted").0;
        assert_eq!(peer, Some(client.local_addr().unwrap()));
    }
}
