//! Observing the accept queue.

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::time::Duration;

use epoll_acceptor::socket::{AcceptFlags, AcceptQueue, accept, accept_queue, has_pending, time_queued};

use crate::wrappers::support::*;

#[test]
fn depth_counts_queued_connections() {
    for server in servers(8).filter(|server| server.kind.is_tcp()) {
        let mut clients = Vec::new();
        for depth in 0..4 {
            assert_eq!(accept_queue(&server.socket).unwrap(), AcceptQueue { depth, backlog: 8 });
            clients.push(server.connect());
        }
        for depth in (0..4).rev() {
            accept(&server.socket, AcceptFlags::default()).unwrap();
            assert_eq!(accept_queue(&server.socket).unwrap().depth, depth, "{:?}", server.kind);
        }
    }
}

#[test]
fn backlog_follows_a_second_listen() {
    for server in servers(5).filter(|server| server.kind.is_tcp()) {
        assert_eq!(accept_queue(&server.socket).unwrap().backlog, 5);
        let _clients = (server.connect(), server.connect());
        server.socket.listen(0).unwrap();
        assert_eq!(accept_queue(&server.socket).unwrap(), AcceptQueue { depth: 2, backlog: 0 });
    }
}

#[test]
fn accept_queue_of_unix_listener_is_unsupported() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        let error = accept_queue(&kind.listen(8).unwrap().socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("has_pending"), "{error}");
    }
}

#[test]
fn accept_queue_of_non_listener_is_invalid() {
    let listener = listener();
    let client = connect(&listener);
    let error = accept_queue(&client).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("not listening"), "{error}");

    socket2::SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
    let error = accept_queue(&listener).unwrap_err();
    assert!(error.to_string().contains("not listening"), "{error}");

    let error = accept_queue(&File::open("/dev/null").unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("not a socket"), "{error}");
}

#[test]
fn has_pending_sees_queued_connections() {
    for server in servers(8) {
        assert!(!has_pending(&server.socket).unwrap());
        let _clients = (server.connect(), server.connect());
        for left in [2, 1] {
            assert!(has_pending(&server.socket).unwrap(), "{:?}: {left}", server.kind);
            accept(&server.socket, AcceptFlags::default()).unwrap();
        }
        assert!(!has_pending(&server.socket).unwrap(), "{:?}", server.kind);
    }
}

#[test]
fn has_pending_is_false_after_tcp_shutdown() {
    let listener = listener();
    let _client = connect(&listener);
    socket2::SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
    assert!(!has_pending(&listener).unwrap());
}

#[test]
fn time_queued_is_the_time_before_accept() {
    // Several jiffies, even at CONFIG_HZ = 100.
    const PAUSE: Duration = Duration::from_millis(60);
    const TOLERANCE: Duration = Duration::from_millis(20);

    for server in servers(8).filter(|server| server.kind.is_tcp()) {
        let mut client = server.connect();
        std::thread::sleep(PAUSE);
        // Data from the client does not reset the clock.
        client.write_all(b"hello").unwrap();
        let stream = accept(&server.socket, AcceptFlags::default()).unwrap();
        let queued = time_queued(&stream).unwrap();
        assert!(queued >= PAUSE - TOLERANCE, "{:?}: {queued:?}", server.kind);
    }
}

#[test]
fn time_queued_rejects_listeners_and_unix_streams() {
    let error = time_queued(&listener()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("is a listener"), "{error}");

    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(time_queued(&stream).unwrap_err().kind(), io::ErrorKind::Unsupported);
}
