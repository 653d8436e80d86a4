//! What the adapter hands out, and how it is woken: streams of each kind, gates, permits from elsewhere.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use epoll_acceptor::{
    AnyListener, Connection, Gate, IntoTokio, LevelTriggered, Listener, Refusal, Trigger, WhenFull,
    accept_queue,
};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{HELLO, assert_all_served, connect_many, listen, listen_unix, on_each, serve};

#[test]
fn streams_of_tokio_read_and_write() {
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(1);
        let mut acceptor = LevelTriggered::on(listener).gate(&gate).into_async().unwrap();
        let client = tokio::spawn(async move {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client.write_all(HELLO).await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            heard
        });
        let mut connection: Connection<tokio::net::TcpStream> = acceptor.accept().await.unwrap().unwrap();
        assert_eq!(gate.in_use(), 1);
        let mut heard = Vec::new();
        connection.read_to_end(&mut heard).await.unwrap();
        connection.write_all(&heard).await.unwrap();
        drop(connection);
        assert_eq!(gate.in_use(), 0);
        assert_eq!(client.await.unwrap(), HELLO);
    });
}

#[test]
fn unix_streams_and_bare_descriptors() {
    on_each(|| async {
        let (socket, address) = listen_unix("streams");
        let listener = UnixListener::from(OwnedFd::from(socket.0));
        let connect = || {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.connect(&address).unwrap();
            client
        };
        let mut acceptor = LevelTriggered::on(listener).into_async().unwrap();
        let mut client = connect();
        let mut connection = acceptor.accept().await.unwrap().unwrap();
        connection.write_all(HELLO).await.unwrap();
        drop(connection);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, HELLO);

        let mut acceptor = Trigger::Edge.on(AnyListener(acceptor.into_listener())).into_async().unwrap();
        let _client = connect();
        let connection: Connection<OwnedFd, ()> = acceptor.accept_std().await.unwrap().unwrap();
        drop(connection);
    });
}

#[test]
fn a_place_that_comes_back_elsewhere_wakes_it() {
    const LIMIT: u32 = 3;
    const CLIENTS: usize = 60;
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let eye = listener.try_clone().unwrap();
            let gate = Gate::new(LIMIT);
            let mut acceptor = trigger.on(listener).gate(&gate).into_async().unwrap();
            let clients = connect_many(address, CLIENTS);
            let mut kept: Vec<_> = Vec::new();
            for _ in 0..LIMIT {
                let connection = acceptor.accept().await.unwrap().unwrap();
                serve(&connection);
                kept.push(connection);
            }
            for served in LIMIT as usize..CLIENTS {
                // Full: it sleeps, however often it is asked, with the others queued.
                tokio::select! {
                    biased;
                    more = acceptor.accept() => panic!("{served} served, full, and {more:?}"),
                    () = tokio::task::yield_now() => {}
                }
                assert_eq!(accept_queue(&eye).unwrap().depth as usize, CLIENTS - served);
                let one = kept.remove(0);
                let thread = std::thread::spawn(move || drop(one.into_parts()));
                let connection = acceptor.accept().await.unwrap().unwrap();
                serve(&connection);
                kept.push(connection);
                thread.join().unwrap();
            }
            assert_all_served(&clients);
            let sleeps = acceptor.hosted().idle_polls();
            assert!(sleeps <= 4 * CLIENTS as u64, "{trigger:?}: {sleeps} sleeps");
            assert_eq!(acceptor.counters().empty, 0);
        }
    });
}

#[test]
fn refusals_are_made_while_it_is_asked() {
    const CLIENTS: usize = 40;
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(1).when_full(WhenFull::Shed(Refusal::message("busy")));
        let mut acceptor = LevelTriggered::on(listener).budget(3).gate(&gate).into_async().unwrap();
        let clients = connect_many(address, 1 + CLIENTS);
        let first = acceptor.accept().await.unwrap().unwrap();
        let asked =
            tokio::spawn(async move { (acceptor.accept().await.map(|next| next.is_some()), acceptor) });
        for client in clients.into_iter().skip(1) {
            client.set_nonblocking(true).unwrap();
            let mut heard = Vec::new();
            tokio::net::TcpStream::from_std(client).unwrap().read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"busy");
        }
        drop(first);
        let _newcomer = connect_many(address, 1);
        let (next, acceptor) = asked.await.unwrap();
        assert!(next.unwrap());
        assert_eq!(acceptor.counters().refused, CLIENTS as u64);
    });
}

/// Every other connection cannot be watched.
#[derive(Debug)]
struct Fussy(TcpListener);

#[derive(Debug)]
struct Odd(OwnedFd);

impl AsFd for Fussy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Odd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Odd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Listener for Fussy {
    type Stream = Odd;
}

impl IntoTokio for Odd {
    type Stream = Self;

    fn into_tokio(self) -> std::io::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        match NUMBER.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(self),
        }
    }
}

#[test]
fn a_client_that_cannot_be_watched_is_its_own_bad_luck() {
    const CLIENTS: u32 = 20;
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(CLIENTS);
        let mut acceptor = LevelTriggered::on(Fussy(listener)).gate(&gate).into_async().unwrap();
        let clients = connect_many(address, CLIENTS as usize);
        let mut kept = Vec::new();
        for _ in 0..CLIENTS / 2 {
            let connection = acceptor.accept().await.unwrap().unwrap();
            serve(&connection);
            kept.push(connection);
        }
        assert_eq!(acceptor.unregistered(), u64::from(CLIENTS / 2));
        assert_eq!(gate.in_use(), CLIENTS / 2, "their places came back");
        let served: Vec<_> = clients.into_iter().skip(1).step_by(2).collect();
        assert_all_served(&served);
    });
}

#[test]
fn pause_and_resume_are_heard() {
    on_each(|| async {
        let (listener, address) = listen();
        let mut acceptor = LevelTriggered::on(listener).into_async().unwrap();
        let control = acceptor.control();
        control.pause();
        let _clients = connect_many(address, 1);
        tokio::select! {
            biased;
            more = acceptor.accept() => panic!("paused, and {more:?}"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        control.resume();
        assert!(acceptor.accept().await.unwrap().is_some());
    });
}
