//! The end of a listener: nobody who is queued is reset, and nobody new comes in.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, AnyListener, Gate, Intake, LevelTriggered, Pending, Refusal, ShutdownReport, WindingDown,
};
use epoll_acceptor::{Admission, Listener, Strategy};
use socket2::Socket;

use crate::support::{
    Client, Door, HELLO, Kind, LISTENER, LONG, NoDescriptors, Owner, Read, TRIGGERS, accept_on,
    assert_all_served, done_in_child, listeners, serve, until,
};

/// Waits, passes and looks as the documentation says, until it is over.
fn end<L: Listener, S: Strategy, A: Admission>(
    owner: &mut Owner,
    mut ending: WindingDown<L, S, A>,
) -> ShutdownReport {
    while !ending.is_over() {
        let timeout = ending.timeout();
        for _ in 0..owner.wait(timeout) {
            ending.drain(|connection| serve(&connection)).unwrap();
        }
    }
    ending.finish()
}

fn barred(kind: Kind) -> Intake {
    match kind {
        Kind::Tcp4 | Kind::Tcp6 => Intake::HandshakesOnly,
        Kind::Mptcp => Intake::Open,
        Kind::UnixStream | Kind::UnixSeqpacket => Intake::Closed,
    }
}

fn assert_kept_out(door: &Door) {
    let (domain, kind) = (door.address.domain(), door.kind);
    let socket_type =
        if kind == Kind::UnixSeqpacket { socket2::Type::SEQPACKET } else { socket2::Type::STREAM };
    let client = Socket::new(domain, socket_type, None).unwrap();
    let (error, expected) = if kind.is_unix() {
        (client.connect(&door.address).unwrap_err(), ErrorKind::ConnectionRefused)
    } else {
        let patience = Duration::from_millis(40);
        (client.connect_timeout(&door.address, patience).unwrap_err(), ErrorKind::TimedOut)
    };
    assert_eq!(error.kind(), expected, "{kind:?}: {error}");
}

#[test]
fn who_is_queued_is_served_and_who_comes_is_kept_out() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let copy = listener.try_clone().unwrap();
            let clients = door.connect_many(70);
            let ending = accept_on(&owner, listener.try_clone().unwrap(), trigger, None)
                .wind_down(Pending::Serve(Refusal::Reset), LONG);
            assert_eq!(ending.barred(), barred(door.kind), "{:?}", door.kind);
            if ending.barred() != Intake::Open {
                assert_kept_out(&door);
            }
            let farewell = end(&mut owner, ending);
            assert_eq!((farewell.served, farewell.refused, farewell.left), (70, 0, Some(0)), "{farewell:?}");
            assert_eq!(owner.registrations(), []);
            assert_all_served(&clients);
            drop(copy);
            if door.kind != Kind::Mptcp {
                break; // the socket is barred for whoever holds it
            }
        }
    }
}

#[test]
fn every_trigger_winds_down() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let mut owner = Owner::new();
            let acceptor = accept_on(&owner, listener, trigger, None);
            let clients = door.connect_many(5);
            let ending = acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG).settle(Duration::ZERO);
            assert_eq!(end(&mut owner, ending).served, 5, "{kind:?} {trigger:?}");
            assert_all_served(&clients);
        }
    }
}

#[test]
fn who_is_queued_is_refused_if_that_is_wanted() {
    for (listener, door) in listeners() {
        let mut owner = Owner::new();
        let acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
        let clients = door.connect_many(70);
        let ending = acceptor.wind_down(Pending::Refuse(Refusal::message(HELLO)), LONG);
        let farewell = end(&mut owner, ending);
        assert_eq!((farewell.served, farewell.refused, farewell.left), (0, 70, Some(0)), "{farewell:?}");
        for client in clients {
            assert_eq!(client.read_within(LONG), Read::Served, "the last word");
            assert_eq!(client.read_within(LONG), Read::End, "and no reset");
        }
    }
}

#[test]
fn at_the_deadline_the_rest_is_refused() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, door) = kind.listen();
        let mut owner = Owner::new();
        let gate = Gate::new(2);
        let mut acceptor =
            LevelTriggered::on(AnyListener(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
        let clients = door.connect_many(5);
        let _kept = owner.take(&mut acceptor, 2);
        let mut ending =
            acceptor.wind_down(Pending::Serve(Refusal::message("full")), Duration::from_millis(50));
        while !ending.is_over() {
            for _ in 0..owner.wait(ending.timeout()) {
                assert_eq!(ending.drain(drop).unwrap(), 0, "there is no room");
            }
        }
        let farewell = ending.finish();
        assert_eq!((farewell.served, farewell.refused, farewell.left), (0, 3, Some(0)), "{farewell:?}");
        assert_all_served(&clients[..2]);
    }
}

#[test]
fn a_stopped_acceptor_has_only_a_rest_to_refuse() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[1], None);
    acceptor.control().stop();
    owner.settle(&mut acceptor);
    let client = door.connect();
    let mut ending = acceptor.wind_down(Pending::Serve(Refusal::Close), LONG);
    assert!(ending.is_over());
    let farewell = ending.finish();
    assert_eq!((farewell.served, farewell.refused, farewell.left), (0, 1, Some(0)));
    assert_eq!(client.read_within(LONG), Read::End);
}

#[allow(unsafe_code)]
fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let value = &raw const value;
    // SAFETY: setsockopt(2) reads an `int`, which is live.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), 4) };
    assert_eq!(answer, 0);
}

#[allow(unsafe_code)]
fn ttl_min(socket: &impl AsRawFd) -> libc::c_int {
    let (mut value, mut size) = (-1, 4);
    let (fd, level, option) = (socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MINTTL);
    let at: *mut libc::c_int = &raw mut value;
    // SAFETY: getsockopt(2) writes an `int`, which is live, as is its size.
    let answer = unsafe { libc::getsockopt(fd, level, option, at.cast(), &raw mut size) };
    assert_eq!(answer, 0);
    value
}

/// TCP_DEFER_ACCEPT holds a handshake open until the client sends something: after the bar, here.
#[test]
fn a_handshake_that_had_begun_is_served_and_hears_its_client() {
    for (kind, asked) in [(Kind::Tcp4, 0), (Kind::Tcp4, 64), (Kind::Tcp6, 0), (Kind::Tcp6, 64)] {
        let (listener, door) = kind.listen();
        set(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 20);
        set(&listener, libc::IPPROTO_IP, libc::IP_MINTTL, asked);
        let mut owner = Owner::new();
        let acceptor = accept_on(&owner, listener, TRIGGERS[1], None);
        let client = door.connect();
        let mut ending = acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG).settle(LONG / 2);
        assert!(!ending.is_over(), "it may be under way");
        client.0.send(b"now").unwrap();
        let (mut taken, control) = (Vec::new(), ending.control());
        owner.until(
            "the handshake ends",
            || taken.extend(ending.ready().map(Result::unwrap)),
            || control.counters().delivered == 1,
        );
        let stream = TcpStream::from(taken.pop().unwrap().into_parts().0);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut heard = [0; 3];
        std::io::Read::read_exact(&mut &stream, &mut heard).unwrap();
        assert_eq!(&heard, b"now");
        client.0.send(b"more").unwrap();
        std::io::Read::read_exact(&mut &stream, &mut heard).unwrap();
        assert_eq!(ttl_min(&stream), asked, "as the listener asked for before");
        assert_eq!(ending.finish().served, 1);
    }
}

/// Clients keep coming from another thread while a service ends: each is served, or was never connected.
#[test]
fn nobody_who_got_through_is_reset() {
    for round in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut owner = Owner::new();
        let mut acceptor = LevelTriggered::on(listener).register(&owner.epoll, LISTENER).unwrap();
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
            let pass = || {
                acceptor.drain(|connection| serve(&connection)).unwrap();
            };
            owner.until("somebody is served", pass, || control.counters().delivered > 0);
            let before = acceptor.counters().delivered;
            let rest = Pending::Serve(Refusal::Reset);
            let ending = acceptor.wind_down(rest, LONG).settle(Duration::from_millis(30));
            let farewell = end(&mut owner, ending);
            over.store(true, Ordering::Relaxed);
            assert_eq!((farewell.refused, farewell.left), (0, Some(0)), "{farewell:?}");
            (connecting.join().unwrap(), before + farewell.served)
        });
        assert_eq!(clients.len() as u64, served, "in round {round}");
        assert_all_served(&clients);
    }
}

/// As if each worker wound down its own duplicate.
#[test]
fn a_second_bar_leaves_no_connection_deaf() {
    let (mut owner, mut second) = (Owner::new(), Owner::new());
    let (listener, door) = Kind::Tcp4.listen();
    set(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 20);
    let copy = listener.try_clone().unwrap();
    let [first, other] = [(&owner, listener), (&second, copy)]
        .map(|(owner, listener)| accept_on(owner, listener, TRIGGERS[0], None));
    let client = door.connect();
    let mut endings = [first, other]
        .map(|acceptor| acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG).settle(LONG / 2));
    client.0.send(b"now").unwrap();
    let mut taken = Vec::new();
    until("it is served", || {
        for (owner, ending) in [&mut owner, &mut second].into_iter().zip(&mut endings).rev() {
            owner.wait(Duration::ZERO);
            taken.extend(ending.ready().map(Result::unwrap));
        }
        !taken.is_empty()
    });
    assert_eq!(ttl_min(&*taken[0]), 0, "it hears its client");
}

#[test]
fn who_is_queued_when_descriptors_run_out_meanwhile_is_refused_all_the_same() {
    if done_in_child("closing::who_is_queued_when_descriptors_run_out_meanwhile_is_refused_all_the_same") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let owner = Owner::new();
            let acceptor = accept_on(&owner, listener, trigger, None);
            let clients = door.connect_many(4);
            let ending = acceptor.wind_down(Pending::Refuse(Refusal::Close), LONG);
            let full = NoDescriptors::now();
            let farewell = ending.finish();
            drop(full);
            assert_eq!((farewell.refused, farewell.left), (4, Some(0)), "{kind:?} {trigger:?}");
            for client in clients {
                assert_eq!(client.read_within(LONG), Read::End, "{kind:?} {trigger:?}");
            }
        }
    }
}

/// A Unix listener that is barred reports its end besides its queue.
#[test]
fn a_reserve_descriptor_serves_while_the_listener_is_wound_down() {
    if done_in_child("closing::a_reserve_descriptor_serves_while_the_listener_is_wound_down") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, door) = kind.listen();
        let mut owner = Owner::new();
        let acceptor = TRIGGERS[0]
            .on(AnyListener(listener))
            .refuse_when_exhausted(Refusal::Close)
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let clients = door.connect_many(4);
        let mut ending = acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG);
        let full = NoDescriptors::now();
        let control = ending.control();
        owner.until("refusals", || assert_eq!(ending.ready().count(), 0), || control.counters().refused >= 4);
        drop(full);
        assert_eq!(control.counters().refused_out_of_descriptors, 4, "{}", control.counters());
        for client in clients {
            assert_eq!(client.read_within(LONG), Read::End, "{kind:?}");
        }
    }
}

#[test]
fn for_want_of_descriptors_some_are_left_and_it_says_how_many() {
    if done_in_child("closing::for_want_of_descriptors_some_are_left_and_it_says_how_many") {
        return;
    }
    let (listener, door) = Kind::Tcp4.listen();
    let owner = Owner::new();
    let acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let clients = door.connect_many(4);
    // Before there could be one in reserve.
    let full = NoDescriptors::now();
    let mut ending = acceptor.wind_down(Pending::Refuse(Refusal::Close), Duration::from_millis(20));
    assert!(!ending.is_over());
    let farewell = ending.finish();
    drop(full);
    assert_eq!((farewell.refused, farewell.left), (0, Some(4)));
    for client in clients {
        until("they are reset", || client.read_within(Duration::from_millis(5)) == Read::Reset);
    }
}
