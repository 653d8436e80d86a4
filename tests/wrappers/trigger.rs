//! When the kernel reports a listener.

use std::net::Shutdown;
use std::time::Duration;

use epoll_acceptor::{AcceptFlags, Epoll, Events, Interest, Token, accept};

use crate::support::*;

const EDGE: Interest = Interest::IN.union(Interest::ET);

#[test]
fn level_reports_until_the_queue_is_empty() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, Interest::IN);
    let _clients = (connect(&listener), connect(&listener));
    for _ in 0..2 {
        assert_eq!(tokens_now(&epoll, &mut events), [1]);
        accept(&listener, AcceptFlags::default()).unwrap();
    }
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
}

#[test]
fn edge_reports_a_burst_once_and_what_is_left_with_the_next_arrival() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, EDGE);
    let _burst = (connect(&listener), connect(&listener), connect(&listener));
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    accept(&listener, AcceptFlags::default()).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "two are queued, and nobody is told");
    let _next = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
}

#[test]
fn what_was_consumed_before_the_wait_gives_no_event() {
    for interest in [Interest::IN, EDGE] {
        let listener = listener();
        let (epoll, mut events) = watching(&listener, interest);
        let _client = connect(&listener);
        accept(&listener, AcceptFlags::default()).unwrap();
        assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    }
}

#[test]
fn add_on_a_ready_listener_reports_at_once() {
    for interest in [Interest::IN, EDGE] {
        let listener = listener();
        let _client = connect(&listener);
        let (epoll, mut events) = watching(&listener, interest);
        assert_eq!(tokens_now(&epoll, &mut events), [1]);
    }
}

#[test]
fn readiness_returns_after_modify() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, EDGE);
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    epoll.modify(&listener, Token(1), EDGE).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [1]);

    accept(&listener, AcceptFlags::default()).unwrap();
    epoll.modify(&listener, Token(1), EDGE).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "nothing is queued");
}

#[test]
fn modify_wakes_a_thread_that_waits() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, EDGE);
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(2));
            epoll.modify(&listener, Token(2), EDGE).unwrap();
        });
        assert_eq!(epoll.wait(&mut events, Some(LONG)).unwrap().count(), 1);
        assert_eq!(events.next().unwrap().token(), Token(2));
    });
}

#[test]
fn oneshot_sleeps_until_it_is_modified() {
    let listener = listener();
    let interest = Interest::IN | Interest::ONESHOT;
    let (epoll, mut events) = watching(&listener, interest);
    let _first = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    let _second = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    epoll.modify(&listener, Token(1), interest).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
}

#[test]
fn an_empty_interest_still_hears_the_end_of_the_listener() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, Interest::empty());
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    socket2::SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
    let [event] = ready_now(&epoll, &mut events)[..] else { panic!("one event") };
    assert_eq!(event.interest(), Interest::HUP);
}

#[test]
fn several_epolls_are_all_told() {
    let listener = listener();
    let epolls = [Interest::IN, EDGE].map(|interest| watching(&listener, interest).0);
    let _client = connect(&listener);
    let mut events = Events::with_capacity(4).unwrap();
    for epoll in &epolls {
        assert_eq!(tokens_now(epoll, &mut events), [1]);
    }
}

#[test]
fn every_kind_of_listener_is_reported() {
    for server in servers(8) {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::with_capacity(4).unwrap();
        epoll.add(&server.socket, Token(1), EDGE).unwrap();
        let _client = server.connect();
        let [event] = ready_now(&epoll, &mut events)[..] else { panic!("one event: {:?}", server.kind) };
        assert_eq!(event.interest(), Interest::IN);
    }
}
