//! Level-triggered and edge-triggered readiness of a listener.

use std::net::Shutdown;
use std::time::Duration;

use epoll_acceptor::socket::{AcceptFlags, accept};
use epoll_acceptor::{Epoll, Events, Interest, Token};

use crate::wrappers::support::*;

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
fn edge_reports_a_burst_once() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, EDGE);
    let _burst = (connect(&listener), connect(&listener), connect(&listener));
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    accept(&listener, AcceptFlags::default()).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "two connections are still queued");
    let _next = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
}

#[test]
fn accept_before_the_wait_leaves_no_event() {
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
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0], "the queue is empty");
}

#[test]
fn modify_wakes_a_blocked_thread() {
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
fn oneshot_is_disabled_until_modify() {
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
fn empty_interest_reports_hup() {
    let listener = listener();
    let (epoll, mut events) = watching(&listener, Interest::empty());
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    socket2::SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
    let [event] = ready_now(&epoll, &mut events)[..] else { panic!("one event") };
    assert_eq!(event.interest(), Interest::HUP);
}

#[test]
fn shared_listener_is_reported_to_all_epolls() {
    let listener = listener();
    let epolls = [Interest::IN, EDGE].map(|interest| watching(&listener, interest).0);
    let _client = connect(&listener);
    let mut events = Events::with_capacity(4).unwrap();
    for epoll in &epolls {
        assert_eq!(tokens_now(epoll, &mut events), [1]);
    }
}

#[test]
fn edge_reports_every_kind_of_listener() {
    for server in servers(8) {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::with_capacity(4).unwrap();
        epoll.add(&server.socket, Token(1), EDGE).unwrap();
        let _client = server.connect();
        let [event] = ready_now(&epoll, &mut events)[..] else { panic!("one event: {:?}", server.kind) };
        assert_eq!(event.interest(), Interest::IN);
    }
}
