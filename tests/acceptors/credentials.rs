//! Who may connect over a Unix socket, and who not.
#![allow(unsafe_code)]

use std::thread;

use epoll_acceptor::{Acceptor, Admission, AllowedUsers, AnyListener, Gate, Refusal};
use nix::unistd::{getegid, geteuid};

use crate::support::{Client, Door, Kind, LISTENER, LONG, Owner, Read, assert_balanced, serve};

/// A user and a group that this process is not.
const OTHER: u32 = 54_321;
const GROUP: u32 = 54_322;

/// What clients read that this policy is asked about, of these listeners.
fn ask(kind: Kind, policy: &AllowedUsers, connect: impl Fn(&Door) -> Client) -> Read {
    let (listener, door) = kind.listen();
    let mut owner = Owner::new();
    let mut acceptor = epoll_acceptor::Trigger::Level
        .on(AnyListener(listener))
        .admission(Gate::new(10).and(policy.clone()))
        .register(&owner.epoll, LISTENER)
        .unwrap();
    let client = connect(&door);
    owner.wait(LONG);
    let served = acceptor.drain(|connection| serve(&connection)).unwrap();
    let counters = acceptor.counters();
    assert_eq!((counters.delivered, counters.refused_credentials), (served as u64, 1 - served as u64));
    assert_balanced(&acceptor);
    client.read_within(LONG)
}

#[test]
fn who_was_named_is_let_in_and_nobody_else() {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let nobody = AllowedUsers::new;
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for allowed in [nobody().user(uid), nobody().group(gid), nobody().user(OTHER).user(uid)] {
            assert_eq!(ask(kind, &allowed, Door::connect), Read::Served, "{allowed:?}");
        }
        for other in [nobody(), nobody().user(OTHER), nobody().group(GROUP), nobody().allow_unknown()] {
            assert_eq!(ask(kind, &other, Door::connect), Read::End, "{other:?}");
        }
        let says = nobody().refusal(Refusal::message("served"));
        assert_eq!(ask(kind, &says, Door::connect), Read::Served, "which is what its last word is here");
    }
}

#[test]
fn tcp_has_no_credentials() {
    let uid = geteuid().as_raw();
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        assert_eq!(ask(kind, &AllowedUsers::new().user(uid), Door::connect), Read::End);
        assert_eq!(ask(kind, &AllowedUsers::new().allow_unknown(), Door::connect), Read::Served);
    }
}

/// Connects as another user, with one supplementary group. The kernel's own calls change the calling thread alone.
fn connect_as_other(door: &Door) -> Client {
    let door = door.clone();
    let other = thread::spawn(move || {
        let groups = [GROUP];
        let changed = |result: libc::c_long| assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: setgroups reads as many groups as it is told; the others take numbers.
        unsafe {
            changed(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()));
            changed(libc::syscall(libc::SYS_setresgid, OTHER, OTHER, OTHER));
            changed(libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER));
        }
        door.connect()
    });
    other.join().unwrap()
}

#[test]
fn another_user_is_who_it_is() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let nobody = AllowedUsers::new;
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for allowed in [nobody().user(OTHER), nobody().group(OTHER), nobody().group(GROUP)] {
            assert_eq!(ask(kind, &allowed, connect_as_other), Read::Served, "{allowed:?}");
        }
        for other in [nobody().user(0), nobody().group(0), nobody().user(GROUP)] {
            assert_eq!(ask(kind, &other, connect_as_other), Read::End, "{other:?}");
        }
    }
}

#[test]
fn root_is_not_let_in_for_being_root() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: this is not root");
        return;
    }
    assert_eq!(ask(Kind::UnixStream, &AllowedUsers::new().user(OTHER), Door::connect), Read::End);
}
