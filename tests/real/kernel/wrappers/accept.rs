//! `accept4`: flags, error classes, and the effect of an error on the queue.
#![allow(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use epoll_acceptor::socket::{AcceptFlags, ErrnoClass, accept, accept_queue, accept_with_peer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

use crate::wrappers::support::*;

#[test]
fn accept_defaults_to_nonblock_and_cloexec() {
    for server in servers(8) {
        let _clients = (server.connect(), server.connect());
        let plain = accept(&server.socket, AcceptFlags::default()).unwrap();
        let (with_peer, _) = accept_with_peer(&server.socket, AcceptFlags::default()).unwrap();
        for socket in [plain, with_peer] {
            assert!(is_nonblocking(&socket), "{:?}", server.kind);
            assert!(is_cloexec(&socket), "{:?}", server.kind);
        }
    }
}

#[test]
fn accept_flags_clear_independently() {
    let table = [
        (AcceptFlags::default().blocking(), (false, true)),
        (AcceptFlags::default().inheritable(), (true, false)),
        (AcceptFlags::default().blocking().inheritable(), (false, false)),
    ];
    for server in servers(8) {
        for (flags, expected) in table {
            let _clients = (server.connect(), server.connect());
            let plain = accept(&server.socket, flags).unwrap();
            let (with_peer, _) = accept_with_peer(&server.socket, flags).unwrap();
            for socket in [plain, with_peer] {
                let found = (is_nonblocking(&socket), is_cloexec(&socket));
                assert_eq!(found, expected, "{:?} {flags:?}", server.kind);
            }
        }
    }
}

#[test]
fn accept_is_fifo() {
    let listener = listener();
    let clients: Vec<_> = (0..4).map(|_| connect(&listener)).collect();
    for client in clients {
        let stream = TcpStream::from(accept(&listener, AcceptFlags::default()).unwrap());
        assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());
    }
}

#[test]
fn empty_queue_is_class_empty() {
    for server in servers(8) {
        for error in [
            accept(&server.socket, AcceptFlags::default()).unwrap_err(),
            accept_with_peer(&server.socket, AcceptFlags::default()).unwrap_err(),
        ] {
            assert_eq!(error.class(), ErrnoClass::Empty);
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(
                error.to_string(),
                "cannot accept a connection: the accept queue is empty (EAGAIN); \
                 wait until the listener is readable"
            );
        }
    }
}

#[test]
fn non_listener_is_class_fatal() {
    let table: [(Box<dyn AsFd>, i32); 3] = [
        (Box::new(std::fs::File::open("/dev/null").unwrap()), libc::ENOTSOCK),
        (Box::new(Kind::Tcp4.socket().unwrap()), libc::EINVAL),
        (Box::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()), libc::EOPNOTSUPP),
    ];
    for (fd, errno) in table {
        let error = accept(&fd.as_fd(), AcceptFlags::default()).unwrap_err();
        assert_eq!((error.class(), error.raw_os_error()), (ErrnoClass::Fatal, errno));
        assert!(error.to_string().ends_with("; stop accepting on it"), "{error}");
        assert_eq!(io::Error::from(error).raw_os_error(), Some(errno));
    }
}

#[test]
fn closed_descriptor_is_class_fatal() {
    // SAFETY: no test opens so high a number; it is used only in calls that return EBADF.
    let closed = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    let error = accept(&closed, AcceptFlags::default()).unwrap_err();
    assert_eq!((error.class(), error.raw_os_error()), (ErrnoClass::Fatal, libc::EBADF));
}

#[test]
fn reset_connection_is_accepted_with_its_address() {
    let listener = listener();
    let client = connect(&listener);
    let address = client.local_addr().unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);

    let (socket, peer) = accept_with_peer(&listener, AcceptFlags::default()).unwrap();
    assert_eq!(peer.ip(), Some(address.ip()));
    let stream = TcpStream::from(socket);
    wait_until("the reset arrives", || {
        stream.peer_addr().is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
    });
}

#[test]
fn emfile_leaves_the_connection_queued() {
    if done_in_child("wrappers::accept::emfile_leaves_the_connection_queued") {
        return;
    }
    let listener = listener();
    let _client = connect(&listener);
    let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let lowest_free = listener.try_clone().unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(lowest_free).unwrap(), before.1).unwrap();

    for error in [
        accept(&listener, AcceptFlags::default()).unwrap_err(),
        accept_with_peer(&listener, AcceptFlags::default()).unwrap_err(),
    ] {
        assert_eq!((error.class(), error.raw_os_error()), (ErrnoClass::Resource, libc::EMFILE));
        assert_eq!(
            error.to_string(),
            "cannot accept a connection: the process has reached RLIMIT_NOFILE (EMFILE); \
             the queue is unchanged: free descriptors or memory, then retry after a delay"
        );
    }
    assert_eq!(accept_queue(&listener).unwrap().depth, 1);
    setrlimit(Resource::RLIMIT_NOFILE, before.0, before.1).unwrap();
    accept(&listener, AcceptFlags::default()).unwrap();
}

#[test]
fn blocking_listener_blocks_accept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || TcpStream::connect(address).unwrap());
    accept(&listener, AcceptFlags::default()).unwrap();
    client.join().unwrap();
}

#[test]
fn mptcp_listener_accepts_plain_tcp() {
    let Some(server) = Kind::Mptcp.listen(8) else { return };
    let client = Kind::Tcp4.socket().unwrap();
    client.connect(&server.address).unwrap();
    let (socket, peer) = accept_with_peer(&server.socket, AcceptFlags::default()).unwrap();
    assert!(is_nonblocking(&socket) && is_cloexec(&socket));
    assert_eq!(peer.ip(), Some("127.0.0.1".parse().unwrap()));
}
