//! Graceful shutdown: no pending connection is reset, and new ones are kept out.

use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use epoll_acceptor::acceptor::Intake;
use epoll_acceptor::{Acceptor, Gate, LevelTriggered, Pending, Refusal, ShutdownReport, State, Trigger};
use socket2::Socket;

use crate::support::{
    Any, AnySocket, Client, Endpoint, HELLO, Kind, LISTENER, LONG, NoDescriptors, Owner, Read, SHORT,
    TRIGGERS, accept_on, assert_all_served, assert_balanced, done_in_child, listeners, matrix, serve,
    wait_until,
};

/// Waits and runs passes until the acceptor is stopped; serves what it delivers.
fn serve_to_the_end(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: AsFd>) -> ShutdownReport {
    let control = acceptor.control();
    owner.until(
        "the shutdown ends",
        || _ = acceptor.drain(|connection| serve(&connection)).unwrap(),
        || control.state().is_terminal(),
    );
    assert_eq!(control.state(), State::Stopped);
    assert!(control.counters().is_balanced(), "{}", control.counters());
    control.shutdown_report().expect("a report")
}

/// Begins the pass that carries the command out, and serves what it delivers.
fn first_pass(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: AsFd>) -> usize {
    (0..owner.wait(LONG)).map(|_| acceptor.drain(|connection| serve(&connection)).unwrap()).sum()
}

fn outcome(report: &ShutdownReport) -> (u64, u64, Option<u32>) {
    (report.served, report.refused, report.abandoned)
}

const fn expected_intake(kind: Kind) -> Intake {
    match kind {
        Kind::Tcp4 | Kind::Tcp6 => Intake::HandshakesOnly,
        Kind::Mptcp => Intake::Open,
        Kind::UnixStream | Kind::UnixSeqpacket => Intake::Closed,
    }
}

fn assert_kept_out(endpoint: &Endpoint) {
    let (domain, kind) = (endpoint.address.domain(), endpoint.kind);
    let socket_type =
        if kind == Kind::UnixSeqpacket { socket2::Type::SEQPACKET } else { socket2::Type::STREAM };
    let client = Socket::new(domain, socket_type, None).unwrap();
    let (error, expected) = if kind.is_unix() {
        (client.connect(&endpoint.address).unwrap_err(), ErrorKind::ConnectionRefused)
    } else {
        let timeout = Duration::from_millis(40);
        (client.connect_timeout(&endpoint.address, timeout).unwrap_err(), ErrorKind::TimedOut)
    };
    assert_eq!(error.kind(), expected, "{kind:?}: {error}");
}

#[test]
fn shutdown_serves_the_queue_and_closes_the_intake() {
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let copy = listener.try_clone().unwrap();
        let clients = endpoint.connect_many(70);
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
        assert!(owner.wait(LONG) > 0);
        let served = acceptor.drain(|connection| serve(&connection)).unwrap();
        if expected_intake(endpoint.kind) != Intake::Open {
            assert_kept_out(&endpoint);
        }
        assert!(served < 70 && acceptor.shutdown_report().is_none(), "beyond the budget");
        let report = serve_to_the_end(&mut owner, &mut acceptor);
        assert_eq!(report.intake, expected_intake(endpoint.kind), "{:?}", endpoint.kind);
        assert_eq!(outcome(&report), (70, 0, Some(0)), "{report:?}");
        assert_eq!(owner.registrations().len(), 2, "the waker and the alarm");
        drop(acceptor);
        assert_eq!(owner.registrations(), []);
        assert_all_served(&clients);
        drop(copy);
        if endpoint.kind != Kind::Mptcp {
            break; // The intake is closed for every holder of the socket.
        }
    }
}

#[test]
fn shutdown_works_under_every_trigger() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let builder = trigger.on(AnySocket(listener)).handshake_grace(Duration::ZERO);
            let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(5);
            acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
            let report = serve_to_the_end(&mut owner, &mut acceptor);
            assert_eq!(report.served, 5, "{kind:?} {trigger:?}");
            assert_all_served(&clients);
        }
    }
}

#[test]
fn shutdown_refuses_the_queue_if_asked() {
    for (listener, endpoint) in listeners() {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
        let clients = endpoint.connect_many(70);
        acceptor.control().shutdown_gracefully(Pending::Refuse(Refusal::message(HELLO)), LONG);
        let report = serve_to_the_end(&mut owner, &mut acceptor);
        assert_eq!(outcome(&report), (0, 70, Some(0)), "{report:?}");
        assert_eq!(acceptor.counters().refused_shutdown, 70);
        for client in clients {
            assert_eq!(client.read_within(LONG), Read::Served, "the message");
            assert_eq!(client.read_within(LONG), Read::End, "and no reset");
        }
    }
}

#[test]
fn deadline_refuses_the_rest() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, endpoint) = kind.listen();
        let mut owner = Owner::new();
        let gate = Gate::new(2);
        let mut acceptor =
            LevelTriggered::on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
        let clients = endpoint.connect_many(5);
        let _kept = owner.take(&mut acceptor, 2);
        let begin = std::time::Instant::now();
        let within = Duration::from_millis(50);
        acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::message("full")), within);
        let report = serve_to_the_end(&mut owner, &mut acceptor);
        assert!(begin.elapsed() >= within, "not before the deadline");
        assert_eq!(outcome(&report), (0, 3, Some(0)), "no permit is available: {report:?}");
        assert_all_served(&clients[..2]);
    }
}

#[test]
fn shutdown_of_a_stopped_acceptor_refuses_the_queue() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[1], None);
    acceptor.control().stop();
    owner.settle(&mut acceptor);
    let client = endpoint.connect();
    acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), LONG);
    assert_eq!(first_pass(&mut owner, &mut acceptor), 0);
    let report = acceptor.shutdown_report().expect("it ends in one pass");
    assert_eq!(outcome(&report), (0, 1, Some(0)));
    assert_eq!(client.read_within(LONG), Read::End);
    assert_eq!(acceptor.state(), State::Stopped);
}

#[test]
fn second_shutdown_has_no_effect() {
    let (listener, endpoint) = Kind::UnixStream.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let clients = endpoint.connect_many(3);
    let control = acceptor.control();
    control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
    control.shutdown_gracefully(Pending::Refuse(Refusal::Reset), Duration::ZERO);
    let report = serve_to_the_end(&mut owner, &mut acceptor);
    assert_eq!(outcome(&report), (3, 0, Some(0)));
    assert_all_served(&clients);
    control.shutdown_gracefully(Pending::Refuse(Refusal::Reset), LONG);
    owner.settle(&mut acceptor);
    assert_eq!(control.shutdown_report(), Some(report));
}

/// Of two commands the first one holds, also when one of them keeps the queue.
#[test]
fn kept_queue_is_not_refused_by_a_second_command() {
    const SERVE: Pending = Pending::Serve(Refusal::Reset);
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for pass_between in [false, true] {
            let (listener, endpoint) = kind.listen();
            let held = listener.try_clone().unwrap();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
            let mut clients = endpoint.connect_many(3);
            acceptor.control().shutdown_gracefully(Pending::Keep, LONG);
            if pass_between {
                owner.settle(&mut acceptor);
            }
            acceptor.control().shutdown_gracefully(SERVE, LONG);
            owner.settle(&mut acceptor);
            assert_eq!((acceptor.state(), acceptor.shutdown_report()), (State::Stopped, None));
            clients.push(endpoint.connect());
            let mut next = accept_on(&owner, held, TRIGGERS[0], None);
            owner.serve(&mut next, 4);
            assert_all_served(&clients);

            let (listener, endpoint) = kind.listen();
            let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
            let clients = endpoint.connect_many(3);
            acceptor.control().shutdown_gracefully(SERVE, LONG);
            if pass_between {
                assert_eq!(first_pass(&mut owner, &mut acceptor), 3);
            }
            acceptor.control().shutdown_gracefully(Pending::Keep, LONG);
            assert_eq!(outcome(&serve_to_the_end(&mut owner, &mut acceptor)), (3, 0, Some(0)));
            assert_all_served(&clients);
        }
    }
}

/// A stop, and the drop of the acceptor's pause, during the shutdown.
#[test]
fn stop_and_pause_hold_during_a_shutdown() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let clients = endpoint.connect_many(3);
            let control = acceptor.control();
            let pause = control.pause();
            control.shutdown_gracefully(Pending::Serve(Refusal::Close), LONG);
            owner.until("paused", || _ = acceptor.drain(drop).unwrap(), || control.state() == State::Paused);
            assert_eq!(control.counters().delivered, 0);
            drop(pause);
            assert!(owner.wait(LONG) > 0);
            serve(&acceptor.ready().next().unwrap().unwrap());
            control.stop();
            let report = serve_to_the_end(&mut owner, &mut acceptor);
            assert_eq!(outcome(&report), (1, 2, Some(0)), "{kind:?} {trigger:?}");
            let reads: Vec<_> = clients.iter().map(|client| client.read_within(LONG)).collect();
            assert_eq!(reads, [Read::Served, Read::End, Read::End]);
        }
    }
}

#[allow(unsafe_code)]
fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let value = &raw const value;
    // SAFETY: setsockopt(2) reads an `int`, which is live.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), 4) };
    assert_eq!(answer, 0);
}

#[allow(unsafe_code)]
fn min_ttl(socket: &impl AsFd) -> libc::c_int {
    let (mut value, mut size) = (-1, 4);
    let (fd, level, option) = (socket.as_fd().as_raw_fd(), libc::IPPROTO_IP, libc::IP_MINTTL);
    let at: *mut libc::c_int = &raw mut value;
    // SAFETY: getsockopt(2) writes an `int`, which is live, as is its size.
    let answer = unsafe { libc::getsockopt(fd, level, option, at.cast(), &raw mut size) };
    assert_eq!(answer, 0);
    value
}

fn with_grace(owner: &Owner, listener: Socket, trigger: Trigger, grace: Duration) -> Any {
    let builder = trigger.on(AnySocket(listener)).handshake_grace(grace);
    builder.register(&owner.epoll, LISTENER).unwrap()
}

/// `TCP_DEFER_ACCEPT` keeps a handshake open until the client sends: here, after the intake is closed.
#[test]
fn handshake_under_way_is_served_with_its_own_ttl() {
    for (kind, asked) in [(Kind::Tcp4, 0), (Kind::Tcp4, 64), (Kind::Tcp6, 0), (Kind::Tcp6, 64)] {
        let (listener, endpoint) = kind.listen();
        set(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 20);
        set(&listener, libc::IPPROTO_IP, libc::IP_MINTTL, asked);
        let mut owner = Owner::new();
        let mut acceptor = with_grace(&owner, listener, TRIGGERS[1], LONG / 2);
        let client = endpoint.connect();
        let control = acceptor.control();
        control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
        assert_eq!(first_pass(&mut owner, &mut acceptor), 0);
        owner.settle(&mut acceptor);
        assert_eq!(control.state(), State::Listening, "a handshake may be under way");
        client.0.send(b"now").unwrap();
        let mut taken = Vec::new();
        owner.until(
            "the handshake ends",
            || taken.extend(acceptor.ready().map(Result::unwrap)),
            || control.counters().delivered == 1,
        );
        let stream = TcpStream::from(OwnedFd::from(taken.pop().unwrap()));
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut received = [0; 3];
        (&stream).read_exact(&mut received).unwrap();
        assert_eq!(&received, b"now");
        client.0.send(b"more").unwrap();
        (&stream).read_exact(&mut received).unwrap();
        assert_eq!(min_ttl(&stream), asked, "the listener's value before the shutdown");
        assert_eq!(control.state(), State::Listening);
    }
}

/// A listener whose own minimum is 255 (GTSM) keeps it, and so do its connections: nothing higher keeps clients out.
#[test]
fn own_min_ttl_of_255_stays() {
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        let (listener, endpoint) = kind.listen();
        set(&listener, libc::IPPROTO_IP, libc::IP_MINTTL, 255);
        let client = Socket::new(endpoint.address.domain(), socket2::Type::STREAM, None).unwrap();
        if kind == Kind::Tcp6 {
            set(&listener, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, 255);
            client.set_unicast_hops_v6(255).unwrap();
        } else {
            client.set_ttl_v4(255).unwrap();
        }
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
        client.connect_timeout(&endpoint.address, LONG).unwrap();
        let control = acceptor.control();
        control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
        assert!(owner.wait(LONG) > 0);
        let taken: Vec<_> = acceptor.ready().map(Result::unwrap).collect();
        assert_eq!(taken.iter().map(min_ttl).collect::<Vec<_>>(), [255], "{kind:?}");
        let report = serve_to_the_end(&mut owner, &mut acceptor);
        assert_eq!((outcome(&report), report.intake), ((1, 0, Some(0)), Intake::Open), "{kind:?}");
    }
}

/// Clients connect from another thread while the acceptor shuts down: each is served, or was never connected.
#[test]
fn connected_clients_are_never_reset() {
    for round in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut owner = Owner::new();
        let mut acceptor = LevelTriggered::on(listener)
            .handshake_grace(Duration::from_millis(30))
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let over = AtomicBool::new(false);
        let (clients, served) = std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                let mut clients = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match TcpStream::connect_timeout(&address, Duration::from_millis(20)) {
                        Ok(client) => clients.push(Client(Socket::from(client))),
                        Err(error) => assert!(
                            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::ConnectionRefused),
                            "{error}"
                        ),
                    }
                }
                clients
            });
            let control = acceptor.control();
            let pass = || _ = acceptor.drain(|connection| serve(&connection)).unwrap();
            owner.until("the first connection", pass, || control.counters().delivered > 0);
            control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
            let report = serve_to_the_end(&mut owner, &mut acceptor);
            over.store(true, Ordering::Relaxed);
            assert_eq!((report.refused, report.abandoned), (0, Some(0)), "{report:?}");
            (connecting.join().unwrap(), control.counters().delivered)
        });
        // On a slow machine a client gives up while it is accepted.
        assert!(clients.len() as u64 <= served, "in round {round}: {} of {served}", clients.len());
        assert_all_served(&clients);
    }
}

/// Two workers shut down their duplicates of one listener.
#[test]
fn second_raise_keeps_the_ttl_of_connections() {
    let (mut owner, mut second) = (Owner::new(), Owner::new());
    let (listener, endpoint) = Kind::Tcp4.listen();
    set(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 20);
    let copy = listener.try_clone().unwrap();
    let mut acceptors = [(&owner, listener), (&second, copy)]
        .map(|(owner, listener)| with_grace(owner, listener, TRIGGERS[0], LONG / 2));
    let client = endpoint.connect();
    for (owner, acceptor) in [&mut owner, &mut second].into_iter().zip(&mut acceptors) {
        acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
        assert_eq!(first_pass(owner, acceptor), 0);
    }
    client.0.send(b"now").unwrap();
    let mut taken = Vec::new();
    wait_until("it is accepted", || {
        for (owner, acceptor) in [&mut owner, &mut second].into_iter().zip(&mut acceptors).rev() {
            owner.wait(Duration::ZERO);
            taken.extend(acceptor.ready().map(Result::unwrap));
        }
        !taken.is_empty()
    });
    assert_eq!(min_ttl(&taken[0]), 0, "it receives what its client sends");
}

#[test]
fn shutdown_refuses_with_a_reserve_descriptor() {
    if done_in_child("shutdown::shutdown_refuses_with_a_reserve_descriptor") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let clients = endpoint.connect_many(4);
            acceptor.control().shutdown_gracefully(Pending::Refuse(Refusal::Close), LONG);
            // Begins the pass, which opens the reserve, and takes no step.
            assert!(owner.wait(LONG) > 0);
            drop(acceptor.ready());
            let none = NoDescriptors::now();
            let report = serve_to_the_end(&mut owner, &mut acceptor);
            drop(none);
            assert_eq!((report.refused, report.abandoned), (4, Some(0)), "{kind:?} {trigger:?}");
            for client in clients {
                assert_eq!(client.read_within(LONG), Read::End, "{kind:?} {trigger:?}");
            }
        }
    }
}

/// A Unix listener whose intake is closed reports its end besides its queue.
#[test]
fn reserve_descriptor_works_during_a_shutdown() {
    if done_in_child("shutdown::reserve_descriptor_works_during_a_shutdown") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, endpoint) = kind.listen();
        let mut owner = Owner::new();
        let mut acceptor = TRIGGERS[0]
            .on(AnySocket(listener))
            .refuse_when_exhausted(Refusal::Close)
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let clients = endpoint.connect_many(4);
        let control = acceptor.control();
        control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
        let none = NoDescriptors::now();
        owner.until(
            "refusals",
            || assert_eq!(acceptor.ready().count(), 0),
            || control.counters().refused >= 4,
        );
        drop(none);
        assert_eq!(control.counters().refused_out_of_descriptors, 4, "{}", control.counters());
        for client in clients {
            assert_eq!(client.read_within(LONG), Read::End, "{kind:?}");
        }
    }
}

/// Served after descriptors are free again, before the deadline.
#[test]
fn shutdown_outlasts_exhausted_descriptors() {
    if done_in_child("shutdown::shutdown_outlasts_exhausted_descriptors") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let clients = endpoint.connect_many(4);
            let control = acceptor.control();
            control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
            let none = NoDescriptors::now();
            owner.until(
                "exhausted",
                || assert_eq!(acceptor.ready().count(), 0),
                || control.state() == State::Exhausted,
            );
            drop(none);
            assert_eq!(owner.registrations().len(), if kind.is_unix() { 2 } else { 3 });
            let report = serve_to_the_end(&mut owner, &mut acceptor);
            assert_eq!(outcome(&report), (4, 0, Some(0)), "{kind:?} {trigger:?}");
            assert_all_served(&clients);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn report_counts_abandoned_connections() {
    if done_in_child("shutdown::report_counts_abandoned_connections") {
        return;
    }
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let clients = endpoint.connect_many(4);
    // From before the shutdown, so that it cannot open a reserve.
    let none = NoDescriptors::now();
    acceptor.control().shutdown_gracefully(Pending::Refuse(Refusal::Close), Duration::from_millis(20));
    let report = serve_to_the_end(&mut owner, &mut acceptor);
    drop(none);
    assert_eq!((report.refused, report.abandoned), (0, Some(4)));
    assert_eq!(owner.wait(SHORT), 0);
    drop(acceptor);
    for client in clients {
        wait_until("the reset", || client.read_within(Duration::from_millis(5)) == Read::Reset);
    }
}
