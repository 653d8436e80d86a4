//! The event buffer and its cursor: no event that the kernel reported is lost.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use epoll_acceptor::epoll::Waker;
use epoll_acceptor::socket::{AcceptFlags, accept};
use epoll_acceptor::{Epoll, Events, Interest, Token};

use crate::wrappers::support::*;

/// Creates an epoll with `count` listeners (tokens 0, 1, 2…), each with one queued connection.
fn ready(count: u64, interest: Interest) -> (Epoll, Vec<(TcpListener, std::net::TcpStream)>) {
    let epoll = Epoll::new().unwrap();
    let sockets = (0..count).map(|token| {
        let listener = listener();
        epoll.add(&listener, Token(token), interest).unwrap();
        let client = connect(&listener);
        (listener, client)
    });
    let sockets = sockets.collect();
    (epoll, sockets)
}

#[test]
fn capacity_of_zero_is_invalid() {
    let error = Events::with_capacity(0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("capacity of 1 or more"), "{error}");
}

#[test]
fn capacity_above_the_kernel_limit_is_invalid() {
    for capacity in [usize::MAX, i32::MAX as usize] {
        assert_eq!(Events::with_capacity(capacity).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn capacity_bounds_the_events_of_a_wait() {
    let (epoll, _sockets) = ready(3, Interest::IN);
    for capacity in [1, 2, 3, 4, 1_000, 100_000] {
        let mut events = Events::with_capacity(capacity).unwrap();
        assert_eq!(events.capacity(), capacity);
        assert_eq!(epoll.wait(&mut events, None).unwrap().count(), capacity.min(3));
        assert_eq!(events.len(), capacity.min(3));
    }
}

#[test]
fn unread_events_come_first_in_the_next_wait() {
    let (epoll, _sockets) = ready(4, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    assert_eq!(epoll.wait(&mut events, None).unwrap().count(), 4);
    let mut tokens = vec![events.next().unwrap().token().0];
    assert_eq!(events.len(), 3);

    let result = epoll.wait(&mut events, None).unwrap();
    assert_eq!((result.count(), result.interrupted()), (3, false));
    tokens.extend(events.by_ref().map(|event| event.token().0));
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3]);
    assert!(events.is_empty());
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "an edge is reported once");
}

#[test]
fn unread_events_make_no_system_call() {
    if done_in_child("wrappers::events::unread_events_make_no_system_call") {
        return;
    }
    let (epoll, _sockets) = ready(2, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    epoll.wait(&mut events, None).unwrap();
    events.next().unwrap();
    filter(&waiting_calls(), Verdict::Kill);
    for timeout in [None, Some(Duration::ZERO), Some(Duration::from_nanos(1))] {
        assert_eq!(epoll.wait(&mut events, timeout).unwrap().count(), 1);
    }
}

#[test]
fn early_exit_loses_no_edge() {
    let (epoll, sockets) = ready(8, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    let mut served = 0;
    while served < sockets.len() {
        let result = epoll.wait(&mut events, Some(LONG)).unwrap();
        assert_ne!(result.count(), 0, "an edge was lost after {served}");
        // Reads one event per wait, as a loop with `break`, `?` or `return` does.
        let event = events.next().unwrap();
        let (listener, _) = &sockets[usize::try_from(event.token().0).unwrap()];
        accept(listener, AcceptFlags::default()).unwrap();
        served += 1;
    }
}

#[test]
fn clear_discards_unread_events() {
    let (epoll, _sockets) = ready(2, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    epoll.wait(&mut events, None).unwrap();
    events.clear();
    assert!(events.is_empty() && events.next().is_none());
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
}

#[test]
fn small_buffer_rotates_through_ready_descriptors() {
    let (epoll, _sockets) = ready(4, Interest::IN);
    let mut events = Events::with_capacity(3).unwrap();
    let rounds: Vec<_> = (0..4).map(|_| tokens_now(&epoll, &mut events)).collect();
    assert_eq!(rounds, [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]]);
}

#[test]
fn event_outlives_its_dropped_waker() {
    let epoll = Epoll::new().unwrap();
    let waker = Waker::new(&epoll, Token(5)).unwrap();
    waker.wake().unwrap();
    let mut events = Events::with_capacity(1).unwrap();
    epoll.wait(&mut events, None).unwrap();
    drop(waker);
    assert_eq!(events.next().unwrap().token(), Token(5));
}

#[test]
fn debug_shows_unread_and_capacity() {
    let (epoll, _sockets) = ready(2, Interest::IN);
    let mut events = Events::with_capacity(7).unwrap();
    assert_eq!(events.size_hint(), (0, Some(0)));
    epoll.wait(&mut events, None).unwrap();
    events.next();
    assert_eq!(events.size_hint(), (1, Some(1)));
    assert_eq!(format!("{events:?}"), "Events { unread: 1, capacity: 7 }");
}
