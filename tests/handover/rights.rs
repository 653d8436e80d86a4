//! Over a Unix socket.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use epoll_acceptor::handover::{self, Received};
use epoll_acceptor::{Acceptor, Epoll, Events, Exclusive, LevelTriggered, Token, accept_queue};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

use crate::support::{LONG, client_of, done_alone, is_close_on_exec, listeners, open_descriptors};

fn wire() -> (UnixStream, UnixStream) {
    let (old, new) = UnixStream::pair().unwrap();
    for end in [&old, &new] {
        end.set_read_timeout(Some(LONG)).unwrap();
    }
    (old, new)
}

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn every_kind_arrives_as_what_it_is_with_its_queue() {
    let (old, new) = wire();
    let mut given = listeners();
    given.iter().for_each(|(_, listener)| listener.set_nonblocking(true).unwrap());
    let clients: Vec<_> = given.iter().map(|(_, listener)| client_of(listener)).collect();
    handover::send(&old, &given).unwrap();
    let received = handover::receive(&new).unwrap();
    assert_eq!(received.len(), given.len());
    assert!(received.names().eq(given.iter().map(|(name, _)| *name)));
    given.clear();
    for ((name, received), client) in received.into_iter().zip(clients) {
        let fd = match (name.as_str(), received) {
            ("tcp4" | "tcp6" | "mptcp", Received::Tcp(listener)) => OwnedFd::from(listener),
            ("unix", Received::Unix(listener)) => listener.into(),
            ("seqpacket", Received::Other(listener)) => listener,
            other => panic!("unexpected: {other:?}"),
        };
        assert!(is_close_on_exec(&fd), "{name}");
        epoll_acceptor::accept(&fd, epoll_acceptor::AcceptFlags::default()).expect("its client is queued");
        drop(client);
    }
}

#[test]
fn several_hand_overs_follow_each_other_on_one_stream() {
    let (old, new) = wire();
    for round in 0..50 {
        let name = "x".repeat(1 + round * 5);
        let listener = tcp();
        handover::send(&old, &[(name.as_str(), &listener), ("second", &listener)]).unwrap();
        let mut listeners = handover::receive(&new).unwrap();
        let first = listeners.take_tcp(&name).unwrap();
        assert_eq!(first.local_addr().unwrap(), listener.local_addr().unwrap());
        listeners.take_tcp("second").unwrap();
        assert!(listeners.is_empty());
        handover::confirm(&new).unwrap();
        handover::await_confirmation(&old).unwrap();
    }
}

#[test]
fn as_many_as_the_kernel_takes_go_at_once_and_no_more() {
    let (old, new) = wire();
    let listener = tcp();
    let name = "n".repeat(255);
    let many = vec![(name.as_str(), &listener); 254];
    assert_eq!(handover::send(&old, &many).unwrap_err().kind(), ErrorKind::InvalidInput);
    // More names than the stream may hold at once.
    let sender = std::thread::scope(|scope| {
        let sending = scope.spawn(|| handover::send(&old, &many[..253]));
        assert_eq!(handover::receive(&new).unwrap().len(), 253);
        sending.join().unwrap()
    });
    sender.unwrap();
}

#[test]
fn what_cannot_be_handed_over_is_refused_before_anything_is_sent() {
    let (old, new) = wire();
    let listener = tcp();
    let refused = |result: std::io::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert!(refused(handover::send::<TcpListener>(&old, &[])).contains("at least one"));
    for name in ["", "a:b", "\n", "ä", "x".repeat(256).as_str()] {
        assert!(refused(handover::send(&old, &[(name, &listener)])).contains("no name"), "{name:?}");
    }
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(refused(handover::send(&old, &[("dns", &datagrams)])).contains("call listen"));
    new.set_nonblocking(true).unwrap();
    assert_eq!(handover::receive(&new).unwrap_err().kind(), ErrorKind::WouldBlock, "nothing was sent");
}

#[test]
fn a_stranger_or_an_end_is_an_error_and_no_listener() {
    let kind = |says: &[u8]| {
        let (mut old, new) = wire();
        old.write_all(says).unwrap();
        drop(old);
        handover::receive(&new).unwrap_err().kind()
    };
    assert_eq!(kind(b""), ErrorKind::UnexpectedEof);
    assert_eq!(kind(b"GET / HTTP/1.1\r\n\r\n"), ErrorKind::InvalidData);
    assert_eq!(kind(b"hand"), ErrorKind::InvalidData);
    assert_eq!(kind(b"handover\x01\0\0\0\x04\0\0\0http"), ErrorKind::InvalidData, "without descriptors");
    let (old, new) = wire();
    handover::send(&old, &[("http", tcp())]).unwrap();
    assert_eq!(handover::await_confirmation(&new).unwrap_err().kind(), ErrorKind::InvalidData);
    let (old, new) = wire();
    drop(new);
    assert_eq!(handover::await_confirmation(&old).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_wrong_name_or_kind_is_told_and_nothing_is_lost() {
    let (old, new) = wire();
    handover::send(&old, &[("http", tcp())]).unwrap();
    let mut listeners = handover::receive(&new).unwrap();
    let missing = listeners.take_tcp("https").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("\"http\""), "{missing}");
    let wrong = listeners.take_unix("http").unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidData);
    assert!(wrong.to_string().contains("is a TCP socket that listens"), "{wrong}");
    listeners.take_tcp("http").unwrap();
}

/// The part that could be received must not stay open behind everyone's back.
#[test]
fn without_descriptors_nothing_is_received_and_nothing_leaks() {
    if done_alone("rights::without_descriptors_nothing_is_received_and_nothing_leaks") {
        return;
    }
    let (old, new) = wire();
    let listener = tcp();
    let open = open_descriptors();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for room in 0..3 {
        handover::send(&old, &[("a", &listener), ("b", &listener), ("c", &listener)]).unwrap();
        let spare: Vec<_> = (0..=room).map(|_| listener.try_clone().unwrap()).collect();
        let limit = u64::try_from(spare.iter().map(AsRawFd::as_raw_fd).max().unwrap()).unwrap();
        drop(spare);
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
        let error = handover::receive(&new).unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
        assert_eq!(open_descriptors(), open, "with room for {room}");
        // The stream is good for another try.
        handover::send(&old, &[("a", &listener)]).unwrap();
        assert!(handover::receive(&new).unwrap().names().eq(["a"]));
    }
}

/// The whole order of steps, with both owners in one process: nobody is reset and everybody is served, by whomever.
#[test]
fn clients_come_all_through_a_hand_over_and_are_all_accepted() {
    let (old_end, new_end) = wire();
    let (old_epoll, new_epoll) = (Epoll::new().unwrap(), Epoll::new().unwrap());
    let mut old = Exclusive::on(tcp()).register(&old_epoll, Token(1)).unwrap();
    let address = old.listener().local_addr().unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    handover::send(&old_end, &[("http", old.listener())]).unwrap();

    let listener = handover::receive(&new_end).unwrap().take_tcp("http").unwrap();
    let mut new = LevelTriggered::on(listener).register(&new_epoll, Token(1)).unwrap();
    handover::confirm(&new_end).unwrap();

    handover::await_confirmation(&old_end).unwrap();
    clients.extend((0..5).map(|_| TcpStream::connect(address).unwrap()));
    let mut served = 0;
    served += old.drain(drop).unwrap();
    drop(old.into_listener());
    clients.extend((0..5).map(|_| TcpStream::connect(address).unwrap()));
    let mut events = Events::with_capacity(4).unwrap();
    while served < clients.len() {
        assert!(new_epoll.wait(&mut events, Some(LONG)).unwrap().count() > 0, "{served} were served");
        events.clear();
        served += new.drain(drop).unwrap();
    }
    assert_eq!(accept_queue(new.listener()).unwrap().depth, 0);
    assert_eq!(
        old_epoll.wait(&mut events, Some(Duration::ZERO)).unwrap().count(),
        0,
        "the old one is silent"
    );
    for client in clients {
        assert_eq!(SockRef::from(&client.as_fd()).take_error().unwrap().map(|error| error.kind()), None);
    }
}
