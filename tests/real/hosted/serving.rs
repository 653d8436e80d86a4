//! What `accept` returns, and what wakes it: streams of each kind, gates, permits released on other threads.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use epoll_acceptor::acceptor::{AsyncAnyStream, IntoTokio};
use epoll_acceptor::socket::{AnyListener, Listener, accept_queue};
use epoll_acceptor::{Connection, Gate, LevelTriggered, Refusal, Trigger, WhenFull};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{HELLO, assert_all_served, connect_many, listen, listen_unix, on_each, serve};

#[test]
fn tokio_streams_read_and_write() {
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(1);
        let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio().unwrap();
        let client = tokio::spawn(async move {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client.write_all(HELLO).await.unwrap();
            client.shutdown().await.unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        });
        let mut connection: Connection<tokio::net::TcpStream> = acceptor.accept().await.unwrap().unwrap();
        assert!(connection.peer().is_some(), "on in tokio");
        assert_eq!(gate.in_use(), 1);
        let mut received = Vec::new();
        connection.read_to_end(&mut received).await.unwrap();
        connection.write_all(&received).await.unwrap();
        drop(connection);
        assert_eq!(gate.in_use(), 0);
        assert_eq!(client.await.unwrap(), HELLO);
    });
}

#[test]
fn unix_streams_and_descriptors_are_accepted() {
    on_each(|| async {
        let (socket, address) = listen_unix("streams");
        let listener = UnixListener::from(OwnedFd::from(socket));
        let connect = || {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.connect(&address).unwrap();
            client
        };
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let mut client = connect();
        let mut connection = acceptor.accept().await.unwrap().unwrap();
        connection.write_all(HELLO).await.unwrap();
        drop(connection);
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received, HELLO);

        let mut acceptor = Trigger::Edge.on(OwnedFd::from(acceptor.into_listener())).build_tokio().unwrap();
        let _client = connect();
        let connection: Connection<OwnedFd> = acceptor.accept_std().await.unwrap().unwrap();
        drop(connection);
    });
}

#[test]
fn streams_of_either_kind_are_accepted() {
    on_each(|| async {
        let (unix, unix_address) = listen_unix("either");
        let (tcp, tcp_address) = listen();
        let listeners = [AnyListener::from(tcp), AnyListener::from(UnixListener::from(OwnedFd::from(unix)))];
        for listener in listeners {
            let is_tcp = matches!(listener, AnyListener::Tcp(_));
            let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
            let domain = if is_tcp { Domain::IPV4 } else { Domain::UNIX };
            let mut client = Socket::new(domain, Type::STREAM, None).unwrap();
            let address = if is_tcp { tcp_address.into() } else { unix_address.clone() };
            client.connect(&address).unwrap();
            client.write_all(HELLO).unwrap();
            let mut connection = acceptor.accept().await.unwrap().unwrap();
            assert_eq!(matches!(*connection, AsyncAnyStream::Tcp(_)), is_tcp);
            let mut received = [0; HELLO.len()];
            connection.read_exact(&mut received).await.unwrap();
            connection.write_all(&received).await.unwrap();
            connection.shutdown().await.unwrap();
            let mut echoed = Vec::new();
            client.read_to_end(&mut echoed).unwrap();
            assert_eq!(echoed, HELLO);
        }
    });
}

#[test]
fn release_on_another_thread_wakes_accept() {
    const LIMIT: u32 = 3;
    const CLIENTS: usize = 60;
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let observer = listener.try_clone().unwrap();
            let gate = Gate::new(LIMIT);
            let mut acceptor = trigger.on(listener).gate(&gate).build_tokio().unwrap();
            let clients = connect_many(address, CLIENTS);
            let mut kept: Vec<_> = Vec::new();
            for _ in 0..LIMIT {
                let connection = acceptor.accept().await.unwrap().unwrap();
                serve(&connection);
                kept.push(connection);
            }
            for served in LIMIT as usize..CLIENTS {
                // The gate is full: `accept` stays pending, with connections queued.
                tokio::select! {
                    biased;
                    more = acceptor.accept() => panic!("{served} served, full, and {more:?}"),
                    () = tokio::task::yield_now() => {}
                }
                assert_eq!(accept_queue(&observer).unwrap().depth as usize, CLIENTS - served);
                let one = kept.remove(0);
                let thread = std::thread::spawn(move || drop(one.into_parts()));
                let connection = acceptor.accept().await.unwrap().unwrap();
                serve(&connection);
                kept.push(connection);
                thread.join().unwrap();
            }
            assert_all_served(&clients);
            let idle_polls = acceptor.hosted().idle_polls();
            assert!(idle_polls <= 4 * CLIENTS as u64, "{trigger:?}: {idle_polls} idle polls");
            assert_eq!(acceptor.counters().empty, 0);
        }
    });
}

#[test]
fn pending_accept_refuses_connections() {
    const CLIENTS: usize = 40;
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::builder(1).when_full(WhenFull::Shed(Refusal::message("busy"))).build();
        let mut acceptor = LevelTriggered::on(listener).budget(3).gate(&gate).build_tokio().unwrap();
        let clients = connect_many(address, 1 + CLIENTS);
        let first = acceptor.accept().await.unwrap().unwrap();
        let accepting =
            tokio::spawn(async move { (acceptor.accept().await.map(|next| next.is_some()), acceptor) });
        for client in clients.into_iter().skip(1) {
            client.set_nonblocking(true).unwrap();
            let mut received = Vec::new();
            tokio::net::TcpStream::from_std(client).unwrap().read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"busy");
        }
        drop(first);
        let _client = connect_many(address, 1);
        let (next, acceptor) = accepting.await.unwrap();
        assert!(next.unwrap());
        assert_eq!(acceptor.counters().refused, CLIENTS as u64);
    });
}

/// A listener; tokio cannot register a connection whose client has sent something.
#[derive(Debug)]
struct PickyListener(TcpListener);

#[derive(Debug)]
struct PickyStream(OwnedFd);

impl AsFd for PickyListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for PickyStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for PickyStream {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Listener for PickyListener {
    type Stream = PickyStream;
}

impl IntoTokio for PickyStream {
    type Stream = Self;

    fn into_tokio(self) -> std::io::Result<Self> {
        match SockRef::from(&self).peek(&mut [MaybeUninit::uninit()]) {
            Ok(_) => Err(std::io::ErrorKind::StorageFull.into()),
            Err(_) => Ok(self),
        }
    }
}

#[test]
fn unregistered_connection_is_no_error() {
    const CLIENTS: usize = 20;
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(100);
        let mut acceptor = LevelTriggered::on(PickyListener(listener)).gate(&gate).build_tokio().unwrap();
        let (mut served, mut closed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        // More in a row than one poll closes, with no event after the last of them.
        for in_a_row in [1, 0, 3, 40].into_iter().cycle().take(CLIENTS) {
            for mut client in connect_many(address, in_a_row) {
                client.write_all(HELLO).unwrap();
                closed.push(client);
            }
            served.extend(connect_many(address, 1));
            let connection = acceptor.accept().await.unwrap().unwrap();
            serve(&connection);
            kept.push(connection);
        }
        assert_eq!(acceptor.unregistered(), closed.len() as u64);
        assert_eq!(gate.in_use() as usize, CLIENTS, "the permits are released");
        assert_all_served(&served);
    });
}

#[test]
fn pause_holds_accept_until_its_drop() {
    on_each(|| async {
        let (listener, address) = listen();
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let control = acceptor.control();
        let pause = control.pause();
        let _clients = connect_many(address, 1);
        tokio::select! {
            biased;
            more = acceptor.accept() => panic!("paused, and {more:?}"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        drop(pause);
        assert!(acceptor.accept().await.unwrap().is_some());
    });
}
