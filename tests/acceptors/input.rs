//! Bad input is answered at once: by an error that names the remedy and gives the listener back, or by what
//! the documentation says.
#![allow(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, AnyListener, BuildError, BuildErrorKind, Epoll, Events, ExclusiveInterest, Gate, Interest,
    LevelTriggered, Listener, Token, Waker,
};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Door, Kind, LISTENER, NoDescriptors, Owner, SHORT, TRIGGERS, accept_on, assert_all_served, done_in_child,
    listeners, open_descriptors,
};

/// The listener that came back still serves.
fn assert_works(listener: &Socket, door: &Door) {
    for trigger in TRIGGERS {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let clients = door.connect_many(2);
        owner.serve(&mut acceptor, 2);
        assert_all_served(&clients);
    }
}

fn refused<L: Listener, T>(answer: Result<T, BuildError<L>>) -> BuildError<L> {
    match answer {
        Ok(_) => panic!("registered"),
        Err(error) => error,
    }
}

#[test]
fn a_budget_of_zero_is_refused_and_the_listener_comes_back() {
    for (listener, door) in listeners() {
        let owner = Owner::new();
        let early = door.connect_many(1);
        let error =
            refused(LevelTriggered::on(AnyListener(listener)).budget(0).register(&owner.epoll, LISTENER));
        assert!(matches!(error.kind(), BuildErrorKind::ZeroBudget));
        assert!(error.to_string().contains("take 1 or more"), "{error}");
        assert_eq!(owner.registrations(), []);
        let listener = error.into_listener().0;
        let mut owner = owner;
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), TRIGGERS[0], None);
        owner.serve(&mut acceptor, 1);
        assert_all_served(&early);
        drop(acceptor);
        assert_works(&listener, &door);
    }
}

#[test]
fn a_buffer_for_no_events_is_refused_and_says_what_to_give() {
    let error = Events::with_capacity(0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("a capacity of 1 or more"), "{error}");
    let error = Events::with_capacity(usize::MAX).unwrap_err();
    assert!(error.to_string().contains("a smaller capacity"), "{error}");
}

#[test]
fn what_does_not_listen_is_refused_and_comes_back() {
    fn check(what: &str, epoll: &Epoll, fd: impl AsFd + Send + Sync) {
        let error = refused(LevelTriggered::on(AnyListener(fd)).register(epoll, LISTENER));
        assert!(matches!(error.kind(), BuildErrorKind::NotListening), "{what}: {error:?}");
        assert!(error.to_string().contains("call listen on it first"), "{what}: {error}");
        // It came back open.
        error.into_listener().0.as_fd().try_clone_to_owned().unwrap();
    }
    let owner = Owner::new();
    let (listener, door) = Kind::Tcp4.listen();
    check("a new socket", &owner.epoll, Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    check("a connection", &owner.epoll, door.connect().0);
    check("UDP", &owner.epoll, UdpSocket::bind("127.0.0.1:0").unwrap());
    check("a Unix socket", &owner.epoll, Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
    // These cannot be polled at all.
    check("a file", &owner.epoll, std::fs::File::open("/proc/self/exe").unwrap());
    check("/dev/null", &owner.epoll, std::fs::File::open("/dev/null").unwrap());
    check("an epoll", &owner.epoll, Epoll::new().unwrap());
    let shut = listener.try_clone().unwrap();
    shut.shutdown(std::net::Shutdown::Both).unwrap();
    check("a listener that was shut down", &owner.epoll, shut);
    assert_eq!(owner.registrations(), []);
}

/// A descriptor that nobody has open.
struct Closed;

impl AsFd for Closed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: does what `borrow_raw` forbids, which is the test: the number is above every limit on
        // descriptors of the tests' processes, so that no call can hit a stranger.
        unsafe { BorrowedFd::borrow_raw(i32::MAX - 1) }
    }
}

#[test]
fn a_closed_descriptor_is_refused_as_listener_and_as_epoll() {
    let owner = Owner::new();
    let error = refused(LevelTriggered::on(AnyListener(Closed)).register(&owner.epoll, LISTENER));
    assert!(matches!(error.kind(), BuildErrorKind::NotListening), "{error:?}");
    let (listener, door) = Kind::Tcp4.listen();
    let error = refused(LevelTriggered::on(AnyListener(listener)).register(Closed, LISTENER));
    let BuildErrorKind::System(cause) = error.kind() else { panic!("{error:?}") };
    assert_eq!(cause.raw_os_error(), Some(libc::EBADF));
    assert_works(&error.into_listener().0, &door);
}

#[test]
fn what_is_no_epoll_is_refused_and_named() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut listener = AnyListener(listener);
    let stream = door.connect();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for strange in [stream.0.as_fd(), other.as_fd(), file.as_fd()] {
        let error = refused(LevelTriggered::on(listener).register(strange, LISTENER));
        assert!(matches!(error.kind(), BuildErrorKind::NotEpoll), "{error:?}");
        assert!(error.to_string().contains("pass one from epoll_create1"), "{error}");
        listener = error.into_listener();
    }
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener.0.try_clone().unwrap(), TRIGGERS[1], None);
    owner.serve(&mut acceptor, 1);
    stream.assert_served();
    drop(acceptor);
    assert_works(&listener.0, &door);
}

#[test]
fn the_same_descriptor_twice_is_refused_and_the_first_registration_lives() {
    for (listener, door) in listeners() {
        let mut owner = Owner::new();
        let mut first = LevelTriggered::on(AnyListener(&listener)).register(&owner.epoll, LISTENER).unwrap();
        let before = owner.registrations();
        let error = refused(LevelTriggered::on(AnyListener(&listener)).register(&owner.epoll, Token(8)));
        assert!(matches!(error.kind(), BuildErrorKind::AlreadyRegistered), "{error:?}");
        assert!(error.to_string().contains("duplicate the listener"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(owner.registrations(), before);
        let clients = door.connect_many(3);
        owner.serve(&mut first, 3);
        assert_all_served(&clients);
        // What the message says helps: a duplicate, or another epoll.
        let copy = listener.try_clone().unwrap();
        let second = LevelTriggered::on(AnyListener(copy)).register(&owner.epoll, Token(8)).unwrap();
        let elsewhere = Owner::new();
        let third = LevelTriggered::on(AnyListener(&listener)).register(&elsewhere.epoll, Token(8)).unwrap();
        drop((first, second, third));
        assert_eq!(owner.registrations(), []);
    }
}

#[test]
fn a_listener_that_the_user_watches_already_is_refused_and_stays_watched() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    owner.epoll.add(&listener, LISTENER, Interest::IN).unwrap();
    let error = refused(LevelTriggered::on(AnyListener(&listener)).register(&owner.epoll, Token(8)));
    assert!(matches!(error.kind(), BuildErrorKind::AlreadyRegistered), "{error:?}");
    let _client = door.connect();
    assert_eq!(owner.wait(SHORT), 1, "it was watched before, and is still");
}

#[test]
fn illegal_exclusive_combinations_are_refused_and_say_what_to_do() {
    let (listener, _door) = Kind::Tcp4.listen();
    let owner = Owner::new();
    owner.epoll.add_exclusive(&listener, LISTENER, ExclusiveInterest::IN).unwrap();
    let error = ExclusiveInterest::try_from(Interest::IN | Interest::ONESHOT).unwrap_err();
    assert!(error.to_string().contains("use EPOLLIN"), "{error}");
    let error = owner.epoll.add(&listener, LISTENER, Interest::IN | Interest::EXCLUSIVE).unwrap_err();
    assert!(error.to_string().contains("use `add_exclusive`"), "{error}");
    let error = owner.epoll.modify(&listener, LISTENER, Interest::IN).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(error.to_string().contains("delete"), "it names the remedy: {error}");
    let error = refused(LevelTriggered::on(AnyListener(&listener)).register(&owner.epoll, Token(8)));
    assert!(matches!(error.kind(), BuildErrorKind::AlreadyRegistered), "{error:?}");
}

#[test]
fn no_timeout_is_too_short_or_too_long() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1500)] {
        assert_eq!(owner.epoll.wait(&mut owner.events, Some(timeout)).unwrap().count(), 0);
    }
    for timeout in
        [Some(Duration::MAX), Some(Duration::from_secs(u64::MAX / 1000)), None, Some(Duration::ZERO)]
    {
        let client = door.connect();
        assert_eq!(owner.epoll.wait(&mut owner.events, timeout).unwrap().count(), 1);
        owner.events.clear();
        assert_eq!(acceptor.drain(|connection| crate::support::serve(&connection)).unwrap(), 1);
        client.assert_served();
    }
}

#[test]
fn an_absurd_timeout_ends_when_the_acceptor_is_rung() {
    let (listener, _door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let control = acceptor.control();
    let thread = std::thread::spawn(move || control.pause());
    assert_eq!(owner.wait(Duration::MAX), 1);
    thread.join().unwrap();
}

#[test]
fn no_budget_and_no_limit_is_too_large() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let gate = Gate::new(u32::MAX);
    assert_eq!(gate.limit(), Gate::LIMIT_MAX);
    let mut acceptor = LevelTriggered::on(AnyListener(listener))
        .budget(u32::MAX)
        .gate(&gate)
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let clients = door.connect_many(100);
    owner.serve(&mut acceptor, 100);
    assert_all_served(&clients);
}

#[test]
fn without_descriptors_a_registration_fails_whole_and_the_listener_comes_back() {
    if done_in_child("input::without_descriptors_a_registration_fails_whole_and_the_listener_comes_back") {
        return;
    }
    let (listener, door) = Kind::Tcp4.listen();
    let mut listener = AnyListener(listener);
    let mut owner = Owner::new();
    let before = open_descriptors();
    // An acceptor needs three besides its listener.
    for left in 0..3 {
        let none = NoDescriptors::all_but(left);
        let error = refused(LevelTriggered::on(listener).register(&owner.epoll, LISTENER));
        drop(none);
        let BuildErrorKind::System(cause) = error.kind() else { panic!("{error:?}") };
        assert_eq!(cause.raw_os_error(), Some(libc::EMFILE));
        listener = error.into_listener();
        assert_eq!(open_descriptors(), before);
        assert_eq!(owner.registrations(), []);
    }
    let three = NoDescriptors::all_but(3);
    let mut acceptor = LevelTriggered::on(listener).register(&owner.epoll, LISTENER).unwrap();
    drop(three);
    let client = door.connect();
    owner.serve(&mut acceptor, 1);
    client.assert_served();
    drop((acceptor, client));
    assert_eq!(open_descriptors(), before - 1);
}

#[test]
fn refused_registrations_leak_nothing() {
    if done_in_child("input::refused_registrations_leak_nothing") {
        return;
    }
    let (listener, _door) = Kind::Tcp4.listen();
    let owner = Owner::new();
    let _first = LevelTriggered::on(AnyListener(&listener)).register(&owner.epoll, LISTENER).unwrap();
    let waker = Waker::new(&owner.epoll, Token(9)).unwrap();
    let stranger = TcpStream::connect(listener.local_addr().unwrap().as_socket().unwrap()).unwrap();
    let before = (open_descriptors(), owner.registrations());
    for _ in 0..50 {
        drop(refused(LevelTriggered::on(AnyListener(&listener)).register(&owner.epoll, Token(8))));
        drop(refused(LevelTriggered::on(AnyListener(&listener)).register(&stranger, Token(8))));
        drop(refused(LevelTriggered::on(AnyListener(&stranger)).register(&owner.epoll, Token(8))));
        drop(refused(LevelTriggered::on(AnyListener(&listener)).budget(0).register(&owner.epoll, Token(8))));
    }
    assert_eq!((open_descriptors(), owner.registrations()), before);
    drop(waker);
}
