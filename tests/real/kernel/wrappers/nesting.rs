//! Nested epolls.

use std::io;
use std::time::Duration;

use epoll_acceptor::socket::{AcceptFlags, accept};
use epoll_acceptor::{Epoll, Events, Interest, Token};

use crate::wrappers::support::*;

#[test]
fn epoll_is_readable_while_an_inner_fd_is_ready() {
    let listener = listener();
    let (inner, mut events) = watching(&listener, Interest::IN);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN).unwrap();
    assert_eq!(tokens_now(&outer, &mut events), [0; 0]);
    let _client = connect(&listener);
    assert_eq!(tokens_now(&outer, &mut events), [9]);
    assert_eq!(tokens_now(&outer, &mut events), [9]);
    accept(&listener, AcceptFlags::default()).unwrap();
    assert_eq!(tokens_now(&outer, &mut events), [0; 0]);
}

#[test]
fn inner_wait_consumes_the_outer_readiness() {
    let listener = listener();
    let (inner, mut events) = watching(&listener, Interest::IN | Interest::ET);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN).unwrap();
    let _client = connect(&listener);
    assert_eq!(tokens_now(&outer, &mut events), [9]);
    assert_eq!(tokens_now(&inner, &mut events), [1]);
    assert_eq!(tokens_now(&outer, &mut events), [0; 0]);
}

#[test]
fn outer_edge_fires_for_each_inner_arrival() {
    let listener = listener();
    let (inner, mut events) = watching(&listener, Interest::IN);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN | Interest::ET).unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connect(&listener));
        assert_eq!(tokens_now(&outer, &mut events), [9]);
        assert_eq!(tokens_now(&outer, &mut events), [0; 0]);
    }
}

#[test]
fn inner_readiness_left_behind_fires_no_outer_edge() {
    let listener = listener();
    let (inner, mut events) = watching(&listener, Interest::IN);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN | Interest::ET).unwrap();
    let _clients = (connect(&listener), connect(&listener));
    assert_eq!(tokens_now(&outer, &mut events), [9]);
    assert_eq!(tokens_now(&inner, &mut events), [1]);
    accept(&listener, AcceptFlags::default()).unwrap();
    assert_eq!(tokens_now(&outer, &mut events), [0; 0], "a connection is still queued");
    assert_eq!(tokens_now(&inner, &mut events), [1]);
}

#[test]
fn nesting_loops_and_long_chains_are_eloop() {
    // Linux 5.10 allows a chain of six.
    let epolls: Vec<_> = (0..7).map(|_| Epoll::new().unwrap()).collect();
    let mut too_deep = None;
    for pair in epolls.windows(2) {
        if let Err(error) = pair[1].add(&pair[0], Token(0), Interest::IN) {
            too_deep = Some(error);
            break;
        }
    }
    let cycle = epolls[0].add(&epolls[1], Token(0), Interest::IN).unwrap_err();
    for error in [too_deep.expect("a chain of seven epolls is too long"), cycle] {
        assert_eq!((error.raw_os_error(), error.kind()), (Some(libc::ELOOP), io::ErrorKind::InvalidInput));
        assert_eq!(
            error.to_string(),
            "cannot add the descriptor to the epoll: \
             the epolls would form a loop or nest too deeply (ELOOP); \
             add the inner descriptors directly, or nest fewer epolls"
        );
    }
}

#[test]
fn draining_the_inner_epoll_misses_no_connection() {
    let listener = listener();
    let (inner, mut inner_events) = watching(&listener, Interest::IN);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN | Interest::ET).unwrap();
    let mut outer_events = Events::with_capacity(4).unwrap();
    for burst in [1, 3, 2] {
        let _clients: Vec<_> = (0..burst).map(|_| connect(&listener)).collect();
        assert_eq!(outer.wait(&mut outer_events, Some(LONG)).unwrap().count(), 1);
        outer_events.clear();
        let mut accepted = 0;
        while inner.wait(&mut inner_events, Some(Duration::ZERO)).unwrap().count() > 0 {
            inner_events.clear();
            accept(&listener, AcceptFlags::default()).unwrap();
            accepted += 1;
        }
        assert_eq!(accepted, burst);
    }
}
