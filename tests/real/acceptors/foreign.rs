//! Acceptors on epolls of other code: hand-written loops and nested epolls.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Gate, Interest, Token};

use crate::support::{
    AnySocket, Kind, LISTENER, LONG, Owner, TRIGGERS, accept_on, assert_all_served, matrix, serve,
};

/// A hand-written loop: an epoll and a slice of events.
struct HandLoop {
    epoll: OwnedFd,
    unread: VecDeque<u64>,
}

impl HandLoop {
    fn new() -> Self {
        // SAFETY: epoll_create1(2) takes no pointer; the descriptor that it returns has no other owner.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            assert_ne!(fd, -1);
            OwnedFd::from_raw_fd(fd)
        };
        Self { epoll, unread: VecDeque::new() }
    }

    /// Adds a descriptor of the loop, edge-triggered, as mio does.
    fn add(&self, fd: BorrowedFd<'_>, data: u64) {
        #[allow(clippy::cast_sign_loss, reason = "a bit mask")]
        let events = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: epoll_ctl(2) reads `event`, which is live.
        let answer = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        };
        assert_eq!(answer, 0);
    }

    /// Returns the data of the next event, or `None` after the timeout.
    fn next(&mut self, timeout_ms: i32) -> Option<u64> {
        if self.unread.is_empty() {
            let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
            // SAFETY: epoll_wait(2) writes at most four events, which is the size of the array.
            let found =
                unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 4, timeout_ms) };
            let found = usize::try_from(found).expect("epoll_wait failed");
            self.unread.extend(events[..found].iter().map(|event| event.u64));
        }
        self.unread.pop_front()
    }
}

#[test]
fn hand_written_loop_keeps_its_own_descriptors() {
    const OWN: u64 = u64::MAX;
    for (listener, endpoint, trigger) in matrix() {
        let mut by_hand = HandLoop::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        by_hand.add(ours.as_fd(), OWN);
        let gate = Gate::new(2);
        let mut acceptor = trigger
            .on(AnySocket(listener.try_clone().unwrap()))
            .gate(&gate)
            .register(&by_hand.epoll, Token(0))
            .unwrap();
        theirs.write_all(b"x").unwrap();
        let clients = endpoint.connect_many(7);
        let (mut own, mut served) = (0, 0);
        let begin = Instant::now();
        let mut kept = Vec::new();
        while own == 0 || served < 7 {
            assert!(begin.elapsed() < LONG, "{served} served: {}", acceptor.counters());
            match by_hand.next(5) {
                Some(OWN) => own += 1,
                Some(token) => {
                    assert_eq!(token, 0);
                    for connection in acceptor.ready().take(2) {
                        let connection = connection.unwrap();
                        serve(&connection);
                        served += 1;
                        kept.push(connection);
                    }
                }
                // Releases the permits that the rest waits for.
                None => kept.clear(),
            }
        }
        assert_eq!(own, 1);
        assert_all_served(&clients);
        drop(acceptor);
        let _late = endpoint.connect();
        assert_eq!(by_hand.next(10), None, "deregistered");
        drop(listener.accept());
    }
}

#[test]
fn nested_epoll_serves_every_connection() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, endpoint) = kind.listen();
        for trigger in TRIGGERS {
            for leave_early in [false, true] {
                let outer = Owner::new();
                let mut inner = Owner::new();
                outer.epoll.add(&inner.epoll, Token(1), Interest::IN).unwrap();
                let mut acceptor = accept_on(&inner, listener.try_clone().unwrap(), trigger, None);
                let clients = endpoint.connect_many(6);
                let mut served = 0;
                let mut events = epoll_acceptor::Events::with_capacity(4).unwrap();
                let begin = Instant::now();
                while served < 6 {
                    assert!(begin.elapsed() < LONG, "{served} served");
                    outer.epoll.wait(&mut events, Some(Duration::from_millis(5))).unwrap();
                    if events.next().is_some() {
                        for _ in 0..inner.wait(Duration::ZERO) {
                            let most = if leave_early { 1 } else { 64 };
                            served += acceptor
                                .ready()
                                .take(most)
                                .map(|connection| serve(&connection.unwrap()))
                                .count();
                        }
                    }
                }
                assert_all_served(&clients);
            }
        }
    }
}

#[test]
fn register_takes_a_duplicate_of_the_epoll() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    for trigger in TRIGGERS {
        let mut owner = Owner::new();
        let copy = owner.epoll.try_clone().unwrap();
        let mut acceptor =
            trigger.on(AnySocket(listener.try_clone().unwrap())).register(&copy, LISTENER).unwrap();
        drop(copy);
        let clients = endpoint.connect_many(3);
        owner.serve(&mut acceptor, 3);
        assert_all_served(&clients);
        assert_eq!(owner.registrations().len(), 3);
        drop(acceptor);
        assert_eq!(owner.registrations(), []);
    }
}
