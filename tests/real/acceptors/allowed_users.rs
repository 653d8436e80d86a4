//! The users and groups that may connect over a Unix socket.
#![allow(unsafe_code)]

use std::thread;

use epoll_acceptor::{Acceptor, AllowedUsers, Gate, Refusal, Trigger};
use nix::unistd::{getegid, geteuid};

use crate::support::{
    AnySocket, Client, Endpoint, Kind, LISTENER, LONG, Owner, Read, assert_balanced, serve,
};

/// A user and a group that this process does not have.
const OTHER: u32 = 54_321;
const GROUP: u32 = 54_322;

/// Returns what a client reads at a listener with this filter.
fn read_behind(kind: Kind, filter: &AllowedUsers, connect: impl Fn(&Endpoint) -> Client) -> Read {
    let (listener, endpoint) = kind.listen();
    let mut owner = Owner::new();
    let mut acceptor = Trigger::Level
        .on(AnySocket(listener))
        .gate(&Gate::new(10))
        .filter(filter.clone())
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let client = connect(&endpoint);
    owner.wait(LONG);
    let served = acceptor.drain(|connection| serve(&connection)).unwrap();
    let counters = acceptor.counters();
    assert_eq!((counters.delivered, counters.refused_credentials), (served as u64, 1 - served as u64));
    assert_balanced(&acceptor);
    client.read_within(LONG)
}

#[test]
fn named_users_and_groups_alone_are_admitted() {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let new = AllowedUsers::new;
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for allowed in [new().user(uid), new().group(gid), new().user(OTHER).user(uid)] {
            assert_eq!(read_behind(kind, &allowed, Endpoint::connect), Read::Served, "{allowed:?}");
        }
        for other in [new(), new().user(OTHER), new().group(GROUP), new().allow_unknown()] {
            assert_eq!(read_behind(kind, &other, Endpoint::connect), Read::End, "{other:?}");
        }
        let with_message = new().refusal(Refusal::message("served"));
        assert_eq!(read_behind(kind, &with_message, Endpoint::connect), Read::Served, "the message");
    }
}

#[test]
fn tcp_has_no_credentials() {
    let uid = geteuid().as_raw();
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        assert_eq!(read_behind(kind, &AllowedUsers::new().user(uid), Endpoint::connect), Read::End);
        assert_eq!(read_behind(kind, &AllowedUsers::new().allow_unknown(), Endpoint::connect), Read::Served);
    }
}

/// Connects as another user, with one supplementary group. The raw system calls change the calling thread alone.
fn connect_as_other(endpoint: &Endpoint) -> Client {
    let endpoint = endpoint.clone();
    let other = thread::spawn(move || {
        let groups = [GROUP];
        let changed = |result: libc::c_long| assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: setgroups(2) reads `groups.len()` groups; the other calls take no pointer.
        unsafe {
            changed(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()));
            changed(libc::syscall(libc::SYS_setresgid, OTHER, OTHER, OTHER));
            changed(libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER));
        }
        endpoint.connect()
    });
    other.join().unwrap()
}

#[test]
fn other_user_is_matched_by_uid_and_groups() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED other_user_is_matched_by_uid_and_groups: requires root");
        return;
    }
    let new = AllowedUsers::new;
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for allowed in [new().user(OTHER), new().group(OTHER), new().group(GROUP)] {
            assert_eq!(read_behind(kind, &allowed, connect_as_other), Read::Served, "{allowed:?}");
        }
        for other in [new().user(0), new().group(0), new().user(GROUP)] {
            assert_eq!(read_behind(kind, &other, connect_as_other), Read::End, "{other:?}");
        }
    }
}

#[test]
fn root_is_refused_unless_it_is_named() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED root_is_refused_unless_it_is_named: requires root");
        return;
    }
    assert_eq!(read_behind(Kind::UnixStream, &AllowedUsers::new().user(OTHER), Endpoint::connect), Read::End);
}
