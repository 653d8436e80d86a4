//! `epoll_wait` fails at every call in turn: EINTR is not an error, and no failure loses an event.

use std::time::Duration;

use epoll_acceptor::Acceptor;

use crate::faults::interpose::{Call, Cost, Plan, plan};
use crate::support::{Kind, Owner, TRIGGERS, accept_on, assert_all_served, serve};

#[test]
fn eintr_sets_interrupted_and_loses_no_event() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for nth in 1..=5 {
                for times in [1, 3] {
                    let (listener, endpoint) = kind.listen();
                    let mut owner = Owner::new();
                    let mut acceptor = accept_on(&owner, listener, trigger, None);
                    let clients = endpoint.connect_many(4);
                    let (errno, cost) = (libc::EINTR, Cost::Nothing);
                    plan([Some(Plan { call: Call::Wait, nth, times, errno, cost }), None]);
                    let (mut served, mut interrupted) = (0, 0);
                    for _ in 0..8 {
                        let timeout = Some(Duration::from_millis(1));
                        let result = owner.epoll.wait(&mut owner.events, timeout).unwrap();
                        assert!(!result.interrupted() || result.count() == 0);
                        interrupted += u32::from(result.interrupted());
                        for _ in &mut owner.events {
                            served += acceptor.ready().take(1).map(|found| serve(&found.unwrap())).count();
                        }
                    }
                    assert_eq!((served, interrupted), (4, times));
                    assert_all_served(&clients);
                }
            }
        }
    }
}

#[test]
fn failing_wait_is_an_error_and_loses_no_event() {
    for trigger in TRIGGERS {
        for errno in [libc::EBADF, libc::EFAULT, libc::EINVAL] {
            let (listener, endpoint) = Kind::Tcp4.listen();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, trigger, None);
            let clients = endpoint.connect_many(3);
            plan([Some(Plan::once(Call::Wait, 1, errno)), None]);
            let timeout = Some(Duration::from_millis(1));
            let error = owner.epoll.wait(&mut owner.events, timeout).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno));
            assert!(owner.events.is_empty());
            owner.serve(&mut acceptor, 3);
            assert_all_served(&clients);
        }
    }
}
