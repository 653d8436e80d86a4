//! `epoll_ctl`: add, modify, delete, and the message of each error.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use epoll_acceptor::epoll::{EpollCtlError, ExclusiveInterest};
use epoll_acceptor::{Epoll, Interest, Token};

use crate::wrappers::support::*;

#[test]
fn epoll_and_its_clone_are_close_on_exec() {
    let epoll = Epoll::new().unwrap();
    assert!(is_cloexec(&epoll));
    assert!(is_cloexec(&epoll.try_clone().unwrap()));
}

#[test]
fn clone_shares_the_registrations() {
    let (epoll, mut events) = watching(&listener(), Interest::IN);
    let listener = listener();
    epoll.try_clone().unwrap().add(&listener, Token(2), Interest::IN).unwrap();
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [2]);
}

#[test]
fn modify_changes_token_and_interest() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, Interest::empty());
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    epoll.modify(&listener, Token(u64::MAX), Interest::IN).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [u64::MAX]);
}

#[test]
fn delete_stops_events() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, Interest::IN);
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    epoll.delete(&listener).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn add_takes_a_borrowed_fd() {
    let listener = listener();
    let epoll = Epoll::new().unwrap();
    let borrowed: BorrowedFd<'_> = listener.as_fd();
    epoll.add(&borrowed, Token(1), Interest::IN).unwrap();
    let dynamic: &dyn AsFd = &listener;
    epoll.delete(dynamic).unwrap();
}

#[test]
fn eexist_suggests_modify() {
    let listener = listener();
    let (epoll, _) = watching(&listener, Interest::IN);
    let error = epoll.add(&listener, Token(2), Interest::IN).unwrap_err();
    expect(
        error,
        libc::EEXIST,
        io::ErrorKind::AlreadyExists,
        "cannot add the descriptor to the epoll: it is already registered (EEXIST); \
         use `modify`, or duplicate the descriptor for a second registration",
    );
}

#[test]
fn enoent_suggests_add() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    expect(
        epoll.modify(&listener, Token(1), Interest::IN).unwrap_err(),
        libc::ENOENT,
        io::ErrorKind::NotFound,
        "cannot modify the descriptor's registration: it is not registered with this epoll (ENOENT); \
         call `add` first",
    );
    expect(
        epoll.delete(&listener).unwrap_err(),
        libc::ENOENT,
        io::ErrorKind::NotFound,
        "cannot delete the descriptor's registration: it is not registered with this epoll (ENOENT); \
         if it was added under another descriptor number, delete that one; otherwise ignore this error",
    );
}

#[test]
fn regular_files_and_directories_are_eperm() {
    let epoll = Epoll::new().unwrap();
    let paths = [std::env::current_exe().unwrap(), "/".into(), "/dev/null".into()];
    for path in paths {
        let error = epoll.add(&File::open(path).unwrap(), Token(1), Interest::IN).unwrap_err();
        expect(
            error,
            libc::EPERM,
            io::ErrorKind::Unsupported,
            "cannot add the descriptor to the epoll: it does not support epoll (EPERM); \
             do not add a regular file or a directory: it is always ready",
        );
    }
}

#[test]
fn ebadf_suggests_keeping_descriptors_open() {
    let epoll = Epoll::new().unwrap();
    // SAFETY: no test opens so high a number; it is used only in a call that returns EBADF.
    let closed = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    expect(
        epoll.add(&closed, Token(1), Interest::IN).unwrap_err(),
        libc::EBADF,
        io::ErrorKind::InvalidInput,
        "cannot add the descriptor to the epoll: one of the two descriptors is not open (EBADF); \
         keep both descriptors open while they are registered",
    );
}

#[test]
fn epoll_in_itself_is_einval() {
    let epoll = Epoll::new().unwrap();
    expect(
        epoll.add(&epoll, Token(1), Interest::IN).unwrap_err(),
        libc::EINVAL,
        io::ErrorKind::InvalidInput,
        "cannot add the descriptor to the epoll: invalid argument (EINVAL); \
         pass an epoll, do not add it to itself, and do not add it to too many others",
    );
}

#[test]
fn exclusive_flag_is_rejected_before_the_kernel() {
    let listener = listener();
    let (epoll, _) = watching(&listener, Interest::IN);
    let flags = Interest::IN | Interest::EXCLUSIVE;

    let added = epoll.add(&listener, Token(1), flags).unwrap_err();
    assert_eq!((added.raw_os_error(), added.kind()), (None, io::ErrorKind::InvalidInput));
    assert_eq!(
        added.to_string(),
        "cannot add the descriptor to the epoll: only `add_exclusive` sets EPOLLEXCLUSIVE; use `add_exclusive`"
    );
    let modified = epoll.modify(&listener, Token(1), flags).unwrap_err();
    assert_eq!((modified.raw_os_error(), modified.kind()), (None, io::ErrorKind::InvalidInput));
    assert_eq!(
        modified.to_string(),
        "cannot modify the descriptor's registration: only `add_exclusive` sets EPOLLEXCLUSIVE; \
         delete the registration and add it again with `add_exclusive`"
    );
}

#[test]
fn exclusive_interest_is_accepted_by_the_kernel() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    let flags = [
        ExclusiveInterest::IN,
        ExclusiveInterest::OUT,
        ExclusiveInterest::ERR,
        ExclusiveInterest::HUP,
        ExclusiveInterest::ET,
        ExclusiveInterest::WAKEUP,
    ];
    for subset in 0..1_usize << flags.len() {
        let chosen = flags.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1);
        let Some(interest) = chosen.map(|(_, flag)| *flag).reduce(|all, flag| all | flag) else { continue };
        epoll.add_exclusive(&listener, Token(1), interest).unwrap();
        let [(_, mask)] = registrations(&epoll)[..] else { panic!("one registration") };
        assert!(Interest::from_bits_retain(mask).contains(Interest::EXCLUSIVE), "{interest:?}");
        epoll.delete(&listener).unwrap();
    }
}

#[test]
fn modify_of_exclusive_registration_is_einval() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    epoll.add_exclusive(&listener, Token(1), ExclusiveInterest::IN).unwrap();
    expect(
        epoll.modify(&listener, Token(1), Interest::IN).unwrap_err(),
        libc::EINVAL,
        io::ErrorKind::InvalidInput,
        "cannot modify the descriptor's registration: invalid argument (EINVAL); \
         pass an epoll; delete an exclusive registration and add it again instead",
    );
}

#[test]
fn add_exclusive_of_an_epoll_is_einval() {
    let (inner, outer) = (Epoll::new().unwrap(), Epoll::new().unwrap());
    expect(
        outer.add_exclusive(&inner, Token(1), ExclusiveInterest::IN).unwrap_err(),
        libc::EINVAL,
        io::ErrorKind::InvalidInput,
        "cannot add the descriptor to the epoll exclusively: invalid argument (EINVAL); \
         pass an epoll; add another epoll to it with `add` only",
    );
}

#[test]
fn exclusive_wakes_all_when_no_thread_blocks() {
    let listener = listener();
    let epolls = [Epoll::new().unwrap(), Epoll::new().unwrap()];
    for epoll in &epolls {
        epoll.add_exclusive(&listener, Token(1), ExclusiveInterest::IN).unwrap();
    }
    let _client = connect(&listener);
    let mut events = epoll_acceptor::Events::with_capacity(4).unwrap();
    for epoll in &epolls {
        assert_eq!(tokens_now(epoll, &mut events), [1]);
    }
}

#[test]
fn duplicate_outlives_the_closed_descriptor() {
    let listener = listener();
    let duplicate = listener.try_clone().unwrap();
    let (epoll, mut events) = watching(&listener, Interest::IN);
    epoll.add(&duplicate, Token(2), Interest::IN).unwrap();
    let _client = connect(&listener);
    assert_eq!(ready_now(&epoll, &mut events).len(), 2);

    drop(listener);
    assert_eq!(ready_now(&epoll, &mut events).len(), 2, "a bare registration outlives its descriptor");
    drop(duplicate);
    // The forked child of another test may hold a copy until its execve.
    wait_until("the last close deletes both", || ready_now(&epoll, &mut events).is_empty());
}

#[test]
fn epoll_ctl_error_converts_to_io_error() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    let error = epoll.delete(&listener).unwrap_err();
    let converted = io::Error::from(error);
    assert_eq!(converted.kind(), io::ErrorKind::NotFound);
    assert_eq!(converted.to_string(), error.to_string());
    let inside = converted.get_ref().unwrap().downcast_ref::<EpollCtlError>();
    assert_eq!(inside, Some(&error));
}

#[test]
fn fdinfo_lists_the_requested_mask() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    let table = [
        (Interest::IN, 0x19),
        (Interest::IN | Interest::ET, 0x8000_0019),
        (Interest::IN | Interest::ONESHOT, 0x4000_0019),
        (Interest::empty(), 0x18),
        (Interest::from_bits_retain(0x0080_0001), 0x0080_0019),
    ];
    for (interest, mask) in table {
        epoll.add(&listener, Token(1), interest).unwrap();
        assert_eq!(registrations(&epoll), [(listener.as_raw_fd(), mask)], "{interest:?}");
        epoll.delete(&listener).unwrap();
    }
}

fn expect(error: EpollCtlError, errno: i32, kind: io::ErrorKind, message: &str) {
    assert_eq!(error.to_string(), message);
    assert_eq!(error.raw_os_error(), Some(errno));
    assert_eq!(error.kind(), kind);
}
