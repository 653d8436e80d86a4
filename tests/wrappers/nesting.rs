//! Epolls that watch epolls.

use std::io;
use std::time::Duration;

use epoll_acceptor::{AcceptFlags, Epoll, Events, Interest, Token, accept};

use crate::support::*;

#[test]
fn an_epoll_is_readable_while_something_inside_is_ready() {
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
fn an_edge_read_inside_is_gone_outside() {
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
fn an_outer_edge_comes_with_every_arrival_inside() {
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
fn leaving_the_inner_one_ready_gives_no_outer_edge() {
    let listener = listener();
    let (inner, mut events) = watching(&listener, Interest::IN);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN | Interest::ET).unwrap();
    let _clients = (connect(&listener), connect(&listener));
    assert_eq!(tokens_now(&outer, &mut events), [9]);
    assert_eq!(tokens_now(&inner, &mut events), [1]);
    accept(&listener, AcceptFlags::default()).unwrap();
    assert_eq!(tokens_now(&outer, &mut events), [0; 0], "one is queued still, and nobody is told");
    assert_eq!(tokens_now(&inner, &mut events), [1]);
}

#[test]
fn circles_and_long_chains_are_refused() {
    let epolls: Vec<_> = (0..6).map(|_| Epoll::new().unwrap()).collect();
    let mut refused = None;
    for pair in epolls.windows(2) {
        if let Err(error) = pair[1].add(&pair[0], Token(0), Interest::IN) {
            refused = Some(error);
            break;
        }
    }
    let circle = epolls[0].add(&epolls[1], Token(0), Interest::IN).unwrap_err();
    for error in [refused.expect("five links are too many"), circle] {
        assert_eq!((error.raw_os_error(), error.kind()), (Some(libc::ELOOP), io::ErrorKind::InvalidInput));
        assert_eq!(
            error.to_string(),
            "cannot add the descriptor to the epoll: \
             epolls would watch each other in a circle or in too long a chain (ELOOP); \
             watch the inner descriptors directly, or through fewer epolls"
        );
    }
}

#[test]
fn a_host_that_reads_the_inner_one_to_the_end_misses_nothing() {
    let listener = listener();
    let (inner, mut inside) = watching(&listener, Interest::IN);
    let outer = Epoll::new().unwrap();
    outer.add(&inner, Token(9), Interest::IN | Interest::ET).unwrap();
    let mut outside = Events::with_capacity(4).unwrap();
    for burst in [1, 3, 2] {
        let _clients: Vec<_> = (0..burst).map(|_| connect(&listener)).collect();
        assert_eq!(outer.wait(&mut outside, Some(LONG)).unwrap().count(), 1);
        outside.clear();
        let mut accepted = 0;
        while inner.wait(&mut inside, Some(Duration::ZERO)).unwrap().count() > 0 {
            inside.clear();
            accept(&listener, AcceptFlags::default()).unwrap();
            accepted += 1;
        }
        assert_eq!(accepted, burst);
    }
}
