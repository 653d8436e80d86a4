//! Listeners passed over a Unix socket: `send` and `receive`.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use epoll_acceptor::handover::{self, Received};
use epoll_acceptor::socket::{AcceptFlags, accept, accept_queue, has_pending};
use epoll_acceptor::{Acceptor, Epoll, Events, Exclusive, LevelTriggered, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

use crate::handover::support::{LONG, client_of, done_alone, is_close_on_exec, listeners, open_descriptors};

fn stream_pair() -> (UnixStream, UnixStream) {
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
fn receive_keeps_the_kind_and_the_queue() {
    let (old, new) = stream_pair();
    let mut sent = listeners();
    sent.iter().for_each(|(_, listener)| listener.set_nonblocking(true).unwrap());
    let clients: Vec<_> = sent.iter().map(|(_, listener)| client_of(listener)).collect();
    handover::send(&old, &sent).unwrap();
    let received = handover::receive(&new).unwrap();
    assert_eq!(received.len(), sent.len());
    assert!(received.names().eq(sent.iter().map(|(name, _)| *name)));
    sent.clear();
    for ((name, received), client) in received.into_iter().zip(clients) {
        let fd = match (name.as_str(), received) {
            ("tcp4" | "tcp6" | "mptcp", Received::Tcp(listener)) => OwnedFd::from(listener),
            ("unix", Received::Unix(listener)) => listener.into(),
            ("seqpacket", Received::Other(listener)) => listener,
            other => panic!("unexpected: {other:?}"),
        };
        assert!(is_close_on_exec(&fd), "{name}");
        // A connect can return before its connection is queued.
        let begun = Instant::now();
        while !has_pending(&fd).unwrap() {
            assert!(begun.elapsed() < LONG, "{name}: its client is not queued");
        }
        accept(&fd, AcceptFlags::default()).unwrap();
        drop(client);
    }
}

#[test]
fn one_stream_carries_several_handovers() {
    let (old, new) = stream_pair();
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
fn send_takes_at_most_253_listeners() {
    let (old, new) = stream_pair();
    let listener = tcp();
    let name = "n".repeat(255);
    let many = vec![(name.as_str(), &listener); 254];
    assert_eq!(handover::send(&old, &many).unwrap_err().kind(), ErrorKind::InvalidInput);
    // The names exceed the buffer of the stream.
    let sender = std::thread::scope(|scope| {
        let sending = scope.spawn(|| handover::send(&old, &many[..253]));
        assert_eq!(handover::receive(&new).unwrap().len(), 253);
        sending.join().unwrap()
    });
    sender.unwrap();
}

#[test]
fn send_rejects_invalid_listeners_before_sending() {
    let (old, new) = stream_pair();
    let listener = tcp();
    let message = |result: std::io::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert!(message(handover::send::<TcpListener>(&old, &[])).contains("at least one"));
    for name in ["", "a:b", "\n", "ä", "x".repeat(256).as_str()] {
        assert!(message(handover::send(&old, &[(name, &listener)])).contains("no colon"), "{name:?}");
    }
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(message(handover::send(&old, &[("dns", &datagrams)])).contains("call listen"));
    new.set_nonblocking(true).unwrap();
    assert_eq!(handover::receive(&new).unwrap_err().kind(), ErrorKind::WouldBlock, "no byte was sent");
}

#[test]
fn receive_rejects_foreign_data_and_eof() {
    let kind = |bytes: &[u8]| {
        let (mut old, new) = stream_pair();
        old.write_all(bytes).unwrap();
        drop(old);
        handover::receive(&new).unwrap_err().kind()
    };
    assert_eq!(kind(b""), ErrorKind::UnexpectedEof);
    assert_eq!(kind(b"GET / HTTP/1.1\r\n\r\n"), ErrorKind::InvalidData);
    assert_eq!(kind(b"hand"), ErrorKind::InvalidData);
    assert_eq!(kind(b"handover\x01\0\0\0\x04\0\0\0http"), ErrorKind::InvalidData, "without descriptors");
    let (old, new) = stream_pair();
    handover::send(&old, &[("http", tcp())]).unwrap();
    assert_eq!(handover::await_confirmation(&new).unwrap_err().kind(), ErrorKind::InvalidData);
    let (old, new) = stream_pair();
    drop(new);
    assert_eq!(handover::await_confirmation(&old).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn take_of_wrong_name_or_kind_keeps_the_listener() {
    let (old, new) = stream_pair();
    handover::send(&old, &[("http", tcp())]).unwrap();
    let mut listeners = handover::receive(&new).unwrap();
    let missing = listeners.take_tcp("https").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("\"http\""), "{missing}");
    let wrong = listeners.take_unix("http").unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidData);
    assert!(wrong.to_string().contains("is a listening TCP socket"), "{wrong}");
    listeners.take_tcp("http").unwrap();
}

/// `receive` closes the descriptors of a truncated message.
#[test]
fn receive_without_free_descriptors_leaks_nothing() {
    if done_alone("handover::rights::receive_without_free_descriptors_leaks_nothing") {
        return;
    }
    let (old, new) = stream_pair();
    let listener = tcp();
    let open = open_descriptors();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for free in 0..3 {
        handover::send(&old, &[("a", &listener), ("b", &listener), ("c", &listener)]).unwrap();
        let duplicates: Vec<_> = (0..=free).map(|_| listener.try_clone().unwrap()).collect();
        let limit = u64::try_from(duplicates.iter().map(AsRawFd::as_raw_fd).max().unwrap()).unwrap();
        drop(duplicates);
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
        let error = handover::receive(&new).unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
        assert_eq!(open_descriptors(), open, "with {free} free descriptors");
        // The stream still works.
        handover::send(&old, &[("a", &listener)]).unwrap();
        assert!(handover::receive(&new).unwrap().names().eq(["a"]));
    }
}

/// With `SO_PASSPIDFD` (Linux 6.5) the kernel adds a pidfd of the sender to each message.
#[test]
#[allow(unsafe_code)]
fn receive_closes_the_pidfd_of_so_passpidfd() {
    /// `asm-generic/socket.h`
    const SO_PASSPIDFD: i32 = 76;
    if done_alone("handover::rights::receive_closes_the_pidfd_of_so_passpidfd") {
        return;
    }
    let (old, new) = stream_pair();
    let on = 1_i32;
    // SAFETY: the value of the option is an int, and its size is correct.
    let result = unsafe {
        libc::setsockopt(new.as_raw_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, (&raw const on).cast(), 4)
    };
    if result == -1 {
        return eprintln!("SKIPPED: SO_PASSPIDFD: {}", std::io::Error::last_os_error());
    }
    let listener = tcp();
    let open = open_descriptors();
    for _ in 0..3 {
        handover::send(&old, &[("a", &listener), ("b", &listener)]).unwrap();
        let received = handover::receive(&new).unwrap();
        assert!(received.names().eq(["a", "b"]));
        assert_eq!(open_descriptors(), open + 2, "only the listeners are open");
        drop(received);
        handover::confirm(&old).unwrap();
        handover::await_confirmation(&new).unwrap();
        assert_eq!(open_descriptors(), open);
    }
    // Without a free descriptor for the pidfd, its control message holds a negative errno.
    handover::send(&old, &[("a", &listener)]).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next = listener.try_clone().unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(next).unwrap() + 1, hard).unwrap();
    let result = handover::receive(&new).map(|received| received.len());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(matches!(result, Ok(1)), "{result:?}");
    assert_eq!(open_descriptors(), open);
}

/// Runs all steps with both owners in one process: no connection is reset, and one of the owners accepts each.
#[test]
fn handover_accepts_every_connection() {
    let (old_end, new_end) = stream_pair();
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
        "the old epoll reports no event"
    );
    for client in clients {
        assert_eq!(SockRef::from(&client.as_fd()).take_error().unwrap().map(|error| error.kind()), None);
    }
}
