//! Event flags: numbers, names, and unnamed bits.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;

use epoll_acceptor::epoll::{EpollCtlError, ExclusiveInterest};
use epoll_acceptor::socket::{AcceptFlags, accept};
use epoll_acceptor::{Epoll, Events, Interest, Token};

use crate::wrappers::support::*;

const ALL: [(Interest, i32, &str); 15] = [
    (Interest::IN, libc::EPOLLIN, "EPOLLIN"),
    (Interest::PRI, libc::EPOLLPRI, "EPOLLPRI"),
    (Interest::OUT, libc::EPOLLOUT, "EPOLLOUT"),
    (Interest::ERR, libc::EPOLLERR, "EPOLLERR"),
    (Interest::HUP, libc::EPOLLHUP, "EPOLLHUP"),
    (Interest::RDNORM, libc::EPOLLRDNORM, "EPOLLRDNORM"),
    (Interest::RDBAND, libc::EPOLLRDBAND, "EPOLLRDBAND"),
    (Interest::WRNORM, libc::EPOLLWRNORM, "EPOLLWRNORM"),
    (Interest::WRBAND, libc::EPOLLWRBAND, "EPOLLWRBAND"),
    (Interest::MSG, libc::EPOLLMSG, "EPOLLMSG"),
    (Interest::RDHUP, libc::EPOLLRDHUP, "EPOLLRDHUP"),
    (Interest::EXCLUSIVE, libc::EPOLLEXCLUSIVE, "EPOLLEXCLUSIVE"),
    (Interest::WAKEUP, libc::EPOLLWAKEUP, "EPOLLWAKEUP"),
    (Interest::ONESHOT, libc::EPOLLONESHOT, "EPOLLONESHOT"),
    (Interest::ET, libc::EPOLLET, "EPOLLET"),
];

#[test]
fn flags_have_the_kernels_number_and_name() {
    for (interest, number, name) in ALL {
        assert_eq!(interest.bits(), u32::from_ne_bytes(number.to_ne_bytes()));
        assert_eq!(format!("{interest:?}"), name);
    }
    assert_eq!(format!("{:?}", Interest::empty()), "0");
}

#[test]
fn unnamed_bits_are_retained() {
    let strange = Interest::from_bits_retain(0x0240_0001);
    assert_eq!(strange.bits(), 0x0240_0001);
    assert_eq!((strange | Interest::ET).bits(), 0x8240_0001);
    assert_eq!((!Interest::IN).bits(), !1);
    assert_eq!(format!("{strange:?}"), "EPOLLIN | 0x2400000");
    assert_eq!(format!("{:?}", Interest::from_bits_retain(0x40_0000)), "0x400000");
}

/// The kernel reports `POLL_BUSY_LOOP` (0x8000), which epoll(7) does not name, for a socket with `SO_BUSY_POLL`.
#[test]
fn unnamed_bits_are_reported_in_events() {
    const POLL_BUSY_LOOP: u32 = 0x8000;

    let listener = listener();
    let mut client = connect(&listener);
    let stream = accept(&listener, AcceptFlags::default()).unwrap();
    let (fd, micros) = (stream.as_raw_fd(), 1_i32);
    // SAFETY: the value of the option is an int, and its size is correct.
    let answer =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, (&raw const micros).cast(), 4) };
    if answer == -1 {
        return eprintln!("SKIPPED: SO_BUSY_POLL: {}", std::io::Error::last_os_error());
    }
    let epoll = Epoll::new().unwrap();
    let interest = Interest::IN | Interest::from_bits_retain(POLL_BUSY_LOOP);
    epoll.add(&stream, Token(1), interest).unwrap();
    client.write_all(b"x").unwrap();
    let mut events = Events::with_capacity(1).unwrap();
    wait_until("data arrives", || {
        epoll.wait(&mut events, None).is_ok_and(|result| {
            events.by_ref().any(|event| event.interest() == interest) && result.count() == 1
        })
    });
}

#[test]
fn listener_reports_in_and_rdnorm() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, Interest::IN | Interest::RDNORM);
    let _client = connect(&listener);
    let [event] = ready_now(&epoll, &mut events)[..] else { panic!("one event") };
    assert_eq!(event.interest(), Interest::IN | Interest::RDNORM);
    assert_eq!(event.token(), Token(1));
}

#[test]
fn exclusive_interest_rejects_other_flags() {
    for (interest, ..) in ALL {
        let kernel_allows = [
            Interest::IN,
            Interest::OUT,
            Interest::ERR,
            Interest::HUP,
            Interest::ET,
            Interest::WAKEUP,
            Interest::EXCLUSIVE,
        ];
        let made = ExclusiveInterest::try_from(interest);
        assert_eq!(made.is_ok(), kernel_allows.contains(&interest), "{interest:?}");
    }
    assert!(ExclusiveInterest::try_from(Interest::from_bits_retain(0x40_0000)).is_err());
}

#[test]
fn exclusive_interest_error_names_the_flags() {
    let flags = Interest::IN | Interest::ONESHOT | Interest::RDHUP;
    let error: EpollCtlError = ExclusiveInterest::try_from(flags).unwrap_err();
    assert_eq!(error.raw_os_error(), None);
    assert_eq!(
        error.to_string(),
        "cannot add the descriptor to the epoll exclusively: \
         EPOLLEXCLUSIVE does not allow EPOLLRDHUP | EPOLLONESHOT; \
         use EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLET and EPOLLWAKEUP only"
    );
}

#[test]
fn exclusive_interest_debug_shows_epollexclusive() {
    let mut interest = ExclusiveInterest::IN;
    interest |= ExclusiveInterest::ET;
    assert_eq!(format!("{interest:?}"), "EPOLLIN | EPOLLEXCLUSIVE | EPOLLET");
    assert_eq!(interest.interest(), Interest::IN | Interest::ET);
}
