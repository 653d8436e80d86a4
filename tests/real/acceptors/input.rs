//! Invalid input: an error that names the constraint and the remedy and returns the listener, or the behaviour that the
//! documentation promises.
#![allow(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use epoll_acceptor::acceptor::{BuildError, BuildErrorKind};
use epoll_acceptor::epoll::{ExclusiveInterest, Waker};
use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Acceptor, Epoll, Events, Gate, Interest, LevelTriggered, Token};
use socket2::{Domain, Socket, Type};

use crate::support::{
    AnySocket, Endpoint, Kind, LISTENER, NoDescriptors, Owner, SHORT, TRIGGERS, accept_on, assert_all_served,
    done_in_child, listeners, open_descriptors,
};

/// Asserts that a returned listener still works.
fn assert_works(listener: &Socket, endpoint: &Endpoint) {
    for trigger in TRIGGERS {
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
        let clients = endpoint.connect_many(2);
        owner.serve(&mut acceptor, 2);
        assert_all_served(&clients);
    }
}

fn rejected<L: Listener, T>(result: Result<T, BuildError<L>>) -> BuildError<L> {
    match result {
        Ok(_) => panic!("registered"),
        Err(error) => error,
    }
}

#[test]
fn budget_of_zero_returns_the_listener() {
    for (listener, endpoint) in listeners() {
        let owner = Owner::new();
        let early = endpoint.connect_many(1);
        let error =
            rejected(LevelTriggered::on(AnySocket(listener)).budget(0).register(&owner.epoll, LISTENER));
        assert!(matches!(error.kind(), BuildErrorKind::ZeroBudget));
        assert!(error.to_string().contains("must be at least 1"), "{error}");
        assert_eq!(owner.registrations(), []);
        let listener = error.into_listener().0;
        let mut owner = owner;
        let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), TRIGGERS[0], None);
        owner.serve(&mut acceptor, 1);
        assert_all_served(&early);
        drop(acceptor);
        assert_works(&listener, &endpoint);
    }
}

#[test]
fn invalid_capacity_names_the_remedy() {
    let error = Events::with_capacity(0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("a capacity of 1 or more"), "{error}");
    let error = Events::with_capacity(usize::MAX).unwrap_err();
    assert!(error.to_string().contains("a smaller capacity"), "{error}");
}

#[test]
fn non_listener_is_returned() {
    fn check(what: &str, epoll: &Epoll, fd: impl AsFd + Send + Sync) {
        let error = rejected(LevelTriggered::on(AnySocket(fd)).register(epoll, LISTENER));
        assert!(matches!(error.kind(), BuildErrorKind::NotListening), "{what}: {error:?}");
        assert!(error.to_string().contains("call listen(2) on it first"), "{what}: {error}");
        // It is still open.
        error.into_listener().0.as_fd().try_clone_to_owned().unwrap();
    }
    let owner = Owner::new();
    let (listener, endpoint) = Kind::Tcp4.listen();
    check("a new socket", &owner.epoll, Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    check("a connection", &owner.epoll, endpoint.connect().0);
    check("UDP", &owner.epoll, UdpSocket::bind("127.0.0.1:0").unwrap());
    check("a Unix socket", &owner.epoll, Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
    // epoll does not support these.
    check("a file", &owner.epoll, std::fs::File::open("/proc/self/exe").unwrap());
    check("/dev/null", &owner.epoll, std::fs::File::open("/dev/null").unwrap());
    check("an epoll", &owner.epoll, Epoll::new().unwrap());
    let shut = listener.try_clone().unwrap();
    shut.shutdown(std::net::Shutdown::Both).unwrap();
    check("a listener after shutdown", &owner.epoll, shut);
    assert_eq!(owner.registrations(), []);
}

/// A descriptor number that is not open.
struct Closed;

impl AsFd for Closed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: violates the contract of `borrow_raw` on purpose: the number is above the descriptor limit of every
        // process, so it is never open and each call returns EBADF.
        unsafe { BorrowedFd::borrow_raw(i32::MAX - 1) }
    }
}

#[test]
fn closed_descriptor_is_rejected() {
    let owner = Owner::new();
    let error = rejected(LevelTriggered::on(AnySocket(Closed)).register(&owner.epoll, LISTENER));
    assert!(matches!(error.kind(), BuildErrorKind::NotListening), "{error:?}");
    let (listener, endpoint) = Kind::Tcp4.listen();
    let error = rejected(LevelTriggered::on(AnySocket(listener)).register(Closed, LISTENER));
    let BuildErrorKind::System(cause) = error.kind() else { panic!("{error:?}") };
    assert_eq!(cause.raw_os_error(), Some(libc::EBADF));
    assert_works(&error.into_listener().0, &endpoint);
}

#[test]
fn non_epoll_is_rejected() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut listener = AnySocket(listener);
    let stream = endpoint.connect();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for other in [stream.0.as_fd(), tcp.as_fd(), file.as_fd()] {
        let error = rejected(LevelTriggered::on(listener).register(other, LISTENER));
        assert!(matches!(error.kind(), BuildErrorKind::NotEpoll), "{error:?}");
        assert!(error.to_string().contains("make it with epoll_create1(2)"), "{error}");
        listener = error.into_listener();
    }
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener.0.try_clone().unwrap(), TRIGGERS[1], None);
    owner.serve(&mut acceptor, 1);
    stream.assert_served();
    drop(acceptor);
    assert_works(&listener.0, &endpoint);
}

#[test]
fn second_registration_is_rejected() {
    for (listener, endpoint) in listeners() {
        let mut owner = Owner::new();
        let mut first = LevelTriggered::on(AnySocket(&listener)).register(&owner.epoll, LISTENER).unwrap();
        let before = owner.registrations();
        let error = rejected(LevelTriggered::on(AnySocket(&listener)).register(&owner.epoll, Token(8)));
        assert!(matches!(error.kind(), BuildErrorKind::AlreadyRegistered), "{error:?}");
        assert!(error.to_string().contains("duplicate the listener"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(owner.registrations(), before);
        let clients = endpoint.connect_many(3);
        owner.serve(&mut first, 3);
        assert_all_served(&clients);
        // The remedies of the message work: a duplicate, or another epoll.
        let copy = listener.try_clone().unwrap();
        let second = LevelTriggered::on(AnySocket(copy)).register(&owner.epoll, Token(8)).unwrap();
        let elsewhere = Owner::new();
        let third = LevelTriggered::on(AnySocket(&listener)).register(&elsewhere.epoll, Token(8)).unwrap();
        drop((first, second, third));
        assert_eq!(owner.registrations(), []);
    }
}

#[test]
fn foreign_registration_is_rejected_and_kept() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    owner.epoll.add(&listener, LISTENER, Interest::IN).unwrap();
    let error = rejected(LevelTriggered::on(AnySocket(&listener)).register(&owner.epoll, Token(8)));
    assert!(matches!(error.kind(), BuildErrorKind::AlreadyRegistered), "{error:?}");
    let _client = endpoint.connect();
    assert_eq!(owner.wait(SHORT), 1, "the first registration is unchanged");
}

#[test]
fn exclusive_errors_name_the_remedy() {
    let (listener, _door) = Kind::Tcp4.listen();
    let owner = Owner::new();
    owner.epoll.add_exclusive(&listener, LISTENER, ExclusiveInterest::IN).unwrap();
    let error = ExclusiveInterest::try_from(Interest::IN | Interest::ONESHOT).unwrap_err();
    assert!(error.to_string().contains("use EPOLLIN"), "{error}");
    let error = owner.epoll.add(&listener, LISTENER, Interest::IN | Interest::EXCLUSIVE).unwrap_err();
    assert!(error.to_string().contains("use `add_exclusive`"), "{error}");
    let error = owner.epoll.modify(&listener, LISTENER, Interest::IN).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(error.to_string().contains("delete"), "{error}");
    let error = rejected(LevelTriggered::on(AnySocket(&listener)).register(&owner.epoll, Token(8)));
    assert!(matches!(error.kind(), BuildErrorKind::AlreadyRegistered), "{error:?}");
}

#[test]
fn every_timeout_is_accepted() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1500)] {
        assert_eq!(owner.epoll.wait(&mut owner.events, Some(timeout)).unwrap().count(), 0);
    }
    for timeout in
        [Some(Duration::MAX), Some(Duration::from_secs(u64::MAX / 1000)), None, Some(Duration::ZERO)]
    {
        let client = endpoint.connect();
        assert_eq!(owner.epoll.wait(&mut owner.events, timeout).unwrap().count(), 1);
        owner.events.clear();
        assert_eq!(acceptor.drain(|connection| crate::support::serve(&connection)).unwrap(), 1);
        client.assert_served();
    }
}

#[test]
fn longest_timeout_ends_with_a_wakeup() {
    let (listener, _door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let control = acceptor.control();
    let thread = std::thread::spawn(move || drop(control.pause()));
    assert_eq!(owner.wait(Duration::MAX), 1);
    thread.join().unwrap();
}

#[test]
fn largest_budget_and_limit_work() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let gate = Gate::new(u32::MAX);
    assert_eq!(gate.limit(), u32::MAX);
    let mut acceptor = LevelTriggered::on(AnySocket(listener))
        .budget(u32::MAX)
        .gate(&gate)
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let clients = endpoint.connect_many(100);
    owner.serve(&mut acceptor, 100);
    assert_all_served(&clients);
}

#[test]
fn register_without_descriptors_changes_nothing() {
    if done_in_child("input::register_without_descriptors_changes_nothing") {
        return;
    }
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut listener = AnySocket(listener);
    let mut owner = Owner::new();
    let before = open_descriptors();
    // An acceptor takes three descriptors besides its listener.
    for left in 0..3 {
        let none = NoDescriptors::all_but(left);
        let error = rejected(LevelTriggered::on(listener).register(&owner.epoll, LISTENER));
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
    let client = endpoint.connect();
    owner.serve(&mut acceptor, 1);
    client.assert_served();
    drop((acceptor, client));
    assert_eq!(open_descriptors(), before - 1);
}

#[test]
fn failed_registrations_leak_nothing() {
    if done_in_child("input::failed_registrations_leak_nothing") {
        return;
    }
    let (listener, _door) = Kind::Tcp4.listen();
    let owner = Owner::new();
    let _first = LevelTriggered::on(AnySocket(&listener)).register(&owner.epoll, LISTENER).unwrap();
    let waker = Waker::new(&owner.epoll, Token(9)).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap().as_socket().unwrap()).unwrap();
    let before = (open_descriptors(), owner.registrations());
    for _ in 0..50 {
        drop(rejected(LevelTriggered::on(AnySocket(&listener)).register(&owner.epoll, Token(8))));
        drop(rejected(LevelTriggered::on(AnySocket(&listener)).register(&stream, Token(8))));
        drop(rejected(LevelTriggered::on(AnySocket(&stream)).register(&owner.epoll, Token(8))));
        drop(rejected(LevelTriggered::on(AnySocket(&listener)).budget(0).register(&owner.epoll, Token(8))));
    }
    assert_eq!((open_descriptors(), owner.registrations()), before);
    drop(waker);
}
