//! The buffer and its cursor: nothing that was taken from the kernel is lost.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use epoll_acceptor::{AcceptFlags, Epoll, Events, Interest, Token, Waker, accept};

use crate::support::*;

/// An epoll with this many listeners, each with one connection: tokens 0, 1, 2...
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
fn a_buffer_for_nothing_is_refused() {
    let error = Events::with_capacity(0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("capacity of 1 or more"), "{error}");
}

#[test]
fn a_buffer_for_more_than_the_kernel_returns_is_refused() {
    for capacity in [usize::MAX, i32::MAX as usize] {
        assert_eq!(Events::with_capacity(capacity).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn any_other_capacity_serves() {
    let (epoll, _sockets) = ready(3, Interest::IN);
    for capacity in [1, 2, 3, 4, 1_000, 100_000] {
        let mut events = Events::with_capacity(capacity).unwrap();
        assert_eq!(events.capacity(), capacity);
        assert_eq!(epoll.wait(&mut events, None).unwrap().count(), capacity.min(3));
        assert_eq!(events.len(), capacity.min(3));
    }
}

#[test]
fn a_half_read_batch_comes_first_in_the_next_wait() {
    let (epoll, _sockets) = ready(4, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    assert_eq!(epoll.wait(&mut events, None).unwrap().count(), 4);
    let mut tokens = vec![events.next().unwrap().token().0];
    assert_eq!(events.len(), 3);

    let waited = epoll.wait(&mut events, None).unwrap();
    assert_eq!((waited.count(), waited.interrupted()), (3, false));
    tokens.extend(events.by_ref().map(|event| event.token().0));
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3]);
    assert!(events.is_empty());
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "edges come once");
}

#[test]
fn unread_events_take_no_system_call() {
    if done_in_child("events::unread_events_take_no_system_call") {
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
fn leaving_the_loop_early_strands_no_other_edge() {
    let (epoll, sockets) = ready(8, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    let mut served = 0;
    while served < sockets.len() {
        let waited = epoll.wait(&mut events, Some(LONG)).unwrap();
        assert_ne!(waited.count(), 0, "an edge was lost after {served}");
        // One event a wait, as by `break`, `?` or `return`.
        let event = events.next().unwrap();
        let (listener, _) = &sockets[usize::try_from(event.token().0).unwrap()];
        accept(listener, AcceptFlags::default()).unwrap();
        served += 1;
    }
}

#[test]
fn clear_forgets_on_purpose() {
    let (epoll, _sockets) = ready(2, Interest::IN | Interest::ET);
    let mut events = Events::with_capacity(16).unwrap();
    epoll.wait(&mut events, None).unwrap();
    events.clear();
    assert!(events.is_empty() && events.next().is_none());
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
}

#[test]
fn more_ready_than_room_takes_turns_and_loses_none() {
    let (epoll, _sockets) = ready(4, Interest::IN);
    let mut events = Events::with_capacity(3).unwrap();
    let rounds: Vec<_> = (0..4).map(|_| tokens_now(&epoll, &mut events)).collect();
    assert_eq!(rounds, [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]]);
}

#[test]
fn an_event_taken_before_its_waker_was_dropped_is_still_handed_out() {
    let epoll = Epoll::new().unwrap();
    let waker = Waker::new(&epoll, Token(5)).unwrap();
    waker.wake().unwrap();
    let mut events = Events::with_capacity(1).unwrap();
    epoll.wait(&mut events, None).unwrap();
    drop(waker);
    assert_eq!(events.next().unwrap().token(), Token(5));
}

#[test]
fn a_buffer_says_what_is_unread() {
    let (epoll, _sockets) = ready(2, Interest::IN);
    let mut events = Events::with_capacity(7).unwrap();
    assert_eq!(events.size_hint(), (0, Some(0)));
    epoll.wait(&mut events, None).unwrap();
    events.next();
    assert_eq!(events.size_hint(), (1, Some(1)));
    assert_eq!(format!("{events:?}"), "Events { unread: 1, capacity: 7 }");
}
