//! A kernel that fills no `TCP_INFO`, as gVisor: a depth of 0 and an age of 0 say nothing.

use std::io::ErrorKind;
use std::time::Duration;

use epoll_acceptor::socket::{accept_queue, has_pending, time_queued};
use epoll_acceptor::{Acceptor, LevelTriggered, Pending, QueueDelay, Refusal, State};

use crate::faults::interpose::{Call, Cost, Plan, blank_tcp_info, plan};
use crate::support::{
    AnySocket, EMPTY_CHECKS, Kind, LISTENER, Owner, TRIGGERS, accept_on, assert_all_served, assert_balanced,
    serve, supported,
};

#[test]
fn blank_tcp_info_strands_nothing() {
    blank_tcp_info(true);
    for kind in supported(&[Kind::Tcp4, Kind::Tcp6, Kind::Mptcp]) {
        for trigger in TRIGGERS {
            for check in EMPTY_CHECKS {
                let (listener, endpoint) = kind.listen();
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener, trigger, check);
                for size in [1, 5, 100, 1, 1] {
                    let clients = endpoint.connect_many(size);
                    owner.serve(&mut acceptor, size);
                    assert_all_served(&clients);
                }
                owner.settle(&mut acceptor);
                assert_balanced(&acceptor);
            }
        }
    }
}

#[test]
fn blank_tcp_info_is_unsupported() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let _clients = endpoint.connect_many(2);
    assert_eq!(accept_queue(&listener).unwrap().depth, 2);
    let (accepted, _) = listener.accept().unwrap();
    time_queued(&accepted).unwrap();
    blank_tcp_info(true);
    assert_eq!(accept_queue(&listener).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(time_queued(&accepted).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(has_pending(&listener).unwrap());
}

/// The fields that tell the two apart are filled in every state that a connection or a listener can have.
#[test]
fn filled_tcp_info_is_recognized_in_every_state() {
    for kind in supported(&[Kind::Tcp4, Kind::Tcp6, Kind::Mptcp]) {
        let (listener, endpoint) = kind.listen();
        for ends in [0, 1, 2] {
            let client = endpoint.connect();
            match ends {
                0 => {}
                1 => client.0.shutdown(std::net::Shutdown::Both).unwrap(),
                _ => client.reset(),
            }
            assert_eq!(accept_queue(&listener).unwrap().depth, 1);
            let (accepted, _) = listener.accept().unwrap();
            time_queued(&accepted).unwrap_or_else(|error| panic!("{kind:?}, {ends}: {error}"));
        }
        listener.shutdown(std::net::Shutdown::Both).unwrap();
        listener.listen(7).unwrap();
        assert_eq!(accept_queue(&listener).unwrap().backlog, 7, "{kind:?}");
    }
}

#[test]
fn queue_delay_without_tcp_info_is_unmeasured() {
    blank_tcp_info(true);
    let (listener, endpoint) = Kind::Tcp4.listen();
    let delay = QueueDelay::builder(Duration::from_millis(50)).build();
    let mut owner = Owner::new();
    let builder = LevelTriggered::on(AnySocket(listener)).filter(delay.clone());
    let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
    let clients = endpoint.connect_many(3);
    owner.serve(&mut acceptor, 3);
    assert_all_served(&clients);
    assert_eq!(delay.unmeasured(), 3);
}

#[test]
fn shutdown_report_without_tcp_info_does_not_say_zero() {
    blank_tcp_info(true);
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, TRIGGERS[0], None);
    let _clients = endpoint.connect_many(3);
    let (errno, cost) = (libc::ENOBUFS, Cost::Nothing);
    plan([Some(Plan { call: Call::Accept, nth: 1, times: u32::MAX, errno, cost }), None]);
    let control = acceptor.control();
    control.shutdown_gracefully(Pending::Refuse(Refusal::Close), Duration::ZERO);
    owner.until(
        "the shutdown ends",
        || _ = acceptor.drain(|connection| serve(&connection)).unwrap(),
        || control.state() == State::Stopped,
    );
    assert_eq!(control.shutdown_report().unwrap().abandoned, None, "three are pending");
}

/// A member whose queue the kernel does not report is neither closed nor served.
#[cfg(feature = "group")]
#[test]
fn group_without_tcp_info_notices_a_stall() {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use epoll_acceptor::group::{Group, MemberHealth};

    blank_tcp_info(true);
    let mut group = Group::builder("127.0.0.1:0".parse().unwrap()).bind(1).unwrap();
    let owner = Owner::new();
    let acceptor = LevelTriggered::on(group.take().unwrap()).register(&owner.epoll, LISTENER).unwrap();
    let health = |group: &Group| group.report()[0].health;
    assert_eq!(health(&group), MemberHealth::Served);
    let _client = TcpStream::connect_timeout(&group.local_addr(), crate::support::LONG).unwrap();
    crate::support::wait_until("it is queued", || has_pending(acceptor.listener()).unwrap());
    assert_eq!(health(&group), MemberHealth::Served);
    assert_eq!(health(&group), MemberHealth::Stalled);
    assert_eq!(group.report()[0].queue, None);
    let listener = TcpListener::from(OwnedFd::from(acceptor.into_listener().into_listener()));
    assert_eq!(health(&group), MemberHealth::Closed, "it has left the group");
    drop(listener);
}
