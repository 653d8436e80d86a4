//! A connection and its permit: the close comes first and the release second, on every path.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use epoll_acceptor::filter::Reservation;
use epoll_acceptor::socket::{AnyListener, AnyStream, Listener};
use epoll_acceptor::{Acceptor, Connection, Filter, Gate, LevelTriggered, State, Trigger};

use crate::support::{
    AnySocket, Client, HELLO, Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_all_served, serve,
    wait_until,
};

/// The names of what was dropped, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;

/// Logs its drop.
struct Logged(&'static str, Log);

impl Drop for Logged {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

fn connection() -> (Connection<Logged, Logged>, Log) {
    let log = Log::default();
    (Connection::new(Logged("stream", log.clone()), Logged("permit", log.clone())), log)
}

fn order(log: &Log) -> Vec<&'static str> {
    log.lock().unwrap().clone()
}

#[test]
fn drop_closes_before_it_releases() {
    let (connection, log) = connection();
    drop(connection);
    assert_eq!(order(&log), ["stream", "permit"]);
}

#[test]
fn map_keeps_the_drop_order() {
    let (connection, log) = connection();
    let mapped = connection.map(|stream| (stream, "and more"));
    assert_eq!(order(&log), [""; 0]);
    drop(mapped);
    assert_eq!(order(&log), ["stream", "permit"]);
}

#[test]
fn try_map_keeps_the_drop_order_on_errors() {
    let (mapped, log) = connection();
    let mapped = mapped.try_map(|stream| Ok::<_, ()>(Box::new(stream))).unwrap();
    assert_eq!(order(&log), [""; 0]);
    drop(mapped);
    assert_eq!(order(&log), ["stream", "permit"]);

    let (failing, log) = connection();
    assert!(failing.try_map(|_| Err::<(), _>("no")).is_err());
    assert_eq!(order(&log), ["stream", "permit"]);
}

#[test]
fn panic_in_map_keeps_the_drop_order() {
    let (connection, log) = connection();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = connection.map(|stream| -> Logged {
            let _stream = stream;
            std::panic::resume_unwind(Box::new("injected panic"))
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(order(&log), ["stream", "permit"]);
}

#[test]
fn into_parts_leaves_the_order_to_the_caller() {
    let (connection, log) = connection();
    let (stream, permit) = connection.into_parts();
    drop(permit);
    drop(stream);
    assert_eq!(order(&log), ["permit", "stream"]);
}

#[test]
fn connection_reads_and_writes_as_its_stream() {
    let (socket, endpoint) = Kind::UnixStream.listen();
    let mut owner = Owner::new();
    let listener = UnixListener::from(OwnedFd::from(socket));
    let mut acceptor = LevelTriggered::on(listener).register(&owner.epoll, LISTENER).unwrap();
    let client = endpoint.connect();
    (&client.0).write_all(b"question").unwrap();
    let mut connection = owner.take(&mut acceptor, 1).remove(0);
    let mut received = [0; 8];
    connection.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"question");
    connection.write_all(b"!").unwrap();
    connection.flush().unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(connection.as_fd().as_raw_fd(), connection.as_raw_fd());
    let mut answer = String::new();
    (&client.0).read_to_string(&mut answer).unwrap();
    assert_eq!(answer.as_bytes(), [HELLO, b"!"].concat());
}

/// A filter whose permits record, when they are released, whether the client has read the end of the stream.
#[derive(Clone, Default)]
struct Watching(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    client: Option<Client>,
    closed_at_release: Vec<bool>,
}

struct WatchingPermit(Watching);

impl Drop for WatchingPermit {
    fn drop(&mut self) {
        let mut seen = self.0.0.lock().unwrap();
        let client = seen.client.as_ref().unwrap();
        client.0.set_nonblocking(true).unwrap();
        let closed = matches!((&client.0).read(&mut [0; 64]), Ok(0));
        seen.closed_at_release.push(closed);
    }
}

impl Filter for Watching {
    type Permit = WatchingPermit;

    fn reserve(&self) -> Reservation<WatchingPermit> {
        Reservation::Granted(WatchingPermit(self.clone()))
    }

    fn cancel(&self, permit: WatchingPermit) {
        std::mem::forget(permit);
    }
}

/// A stream of the user's own.
struct Session(UnixStream);

impl From<OwnedFd> for Session {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A listener of the user's own.
struct Sessions(UnixListener);

impl AsFd for Sessions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener for Sessions {
    type Stream = Session;
}

#[test]
fn permit_is_released_after_the_close() {
    for way in 0..4 {
        let (socket, endpoint) = Kind::UnixStream.listen();
        let filter = Watching::default();
        let owner = Owner::new();
        let listener = Sessions(UnixListener::from(OwnedFd::from(socket)));
        let mut acceptor =
            Trigger::Level.on(listener).filter(filter.clone()).register(&owner.epoll, LISTENER).unwrap();
        filter.0.lock().unwrap().client = Some(endpoint.connect());
        let connection = acceptor.ready().next().unwrap().unwrap();
        match way {
            0 => drop(connection),
            1 => drop(connection.map(Box::new)),
            2 => drop(connection.try_map(|_| Err::<(), _>(()))),
            _ => drop(connection.map(|session| session.0).map(OwnedFd::from)),
        }
        assert_eq!(filter.0.lock().unwrap().closed_at_release, [true], "way {way}");
    }
}

/// A stream whose conversion may panic.
struct Fragile(OwnedFd);

thread_local! {
    static UNTIL_PANIC: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl From<OwnedFd> for Fragile {
    fn from(fd: OwnedFd) -> Self {
        UNTIL_PANIC.set(UNTIL_PANIC.get().wrapping_sub(1));
        if UNTIL_PANIC.get() == 0 {
            std::panic::resume_unwind(Box::new("injected panic"));
        }
        Self(fd)
    }
}

impl AsFd for Fragile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct FragileListener(OwnedFd);

impl AsFd for FragileListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener for FragileListener {
    type Stream = Fragile;
}

#[test]
fn panic_in_the_conversion_costs_one_connection() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        for nth in 1..=3 {
            let (socket, endpoint) = Kind::Tcp4.listen();
            let gate = Gate::new(10);
            let mut owner = Owner::new();
            let listener = FragileListener(OwnedFd::from(socket));
            let mut acceptor = trigger.on(listener).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(3);
            UNTIL_PANIC.set(nth);
            let (mut served, mut panicked) = (0, 0);
            while served + panicked < 3 {
                assert_eq!(owner.wait(LONG), 1, "{served} served, {panicked} panicked");
                let pass = std::panic::AssertUnwindSafe(|| {
                    for found in acceptor.ready() {
                        serve(&found.unwrap());
                        served += 1;
                    }
                });
                panicked += u32::from(std::panic::catch_unwind(pass).is_err());
            }
            let seen: Vec<_> = clients.iter().map(|client| client.read_within(LONG)).collect();
            let reads = |what| seen.iter().filter(|read| **read == what).count();
            assert_eq!((reads(Read::Served), reads(Read::End), panicked), (2, 1, 1));
            assert_eq!(gate.in_use(), 0);
            assert!(acceptor.counters().is_balanced(), "{}", acceptor.counters());
        }
    }
}

#[test]
fn any_stream_reads_and_writes_over_tcp_and_unix() {
    for kind in [Kind::Tcp4, Kind::Tcp6, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (socket, endpoint) = kind.listen();
            let listener = match kind.is_unix() {
                true => AnyListener::from(UnixListener::from(OwnedFd::from(socket))),
                false => AnyListener::from(std::net::TcpListener::from(socket)),
            };
            let gate = Gate::new(1);
            let mut owner = Owner::new();
            let address = listener.local_addr().unwrap();
            let mut acceptor = trigger.on(listener).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let client = endpoint.connect();
            (&client.0).write_all(b"question").unwrap();
            let mut connection = owner.take(&mut acceptor, 1).remove(0);
            assert_eq!(matches!(*connection, AnyStream::Unix(_)), kind.is_unix());
            let (local, peer) = (connection.local_addr().unwrap(), connection.peer_addr().unwrap());
            assert_eq!(format!("{local:?}"), format!("{address:?}"));
            assert_eq!(peer.socket_addr(), client.0.local_addr().unwrap().as_socket());
            client.assert_served();
            let mut received = [0; 8];
            wait_until("the question", || connection.read_exact(&mut received).is_ok());
            assert_eq!(&received, b"question");
            connection.set_nonblocking(false).unwrap();
            connection.write_all(b"answer").unwrap();
            connection.flush().unwrap();
            connection.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            (&client.0).read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "answer");
        }
    }
}

#[test]
fn gate_of_an_option_limits_if_there_is_one() {
    let gate = Gate::new(1);
    for (gate, served) in [(Some(&gate), 1), (None, 2)] {
        let (socket, endpoint) = Kind::Tcp4.listen();
        let mut owner = Owner::new();
        let builder = LevelTriggered::on(std::net::TcpListener::from(socket)).gate(gate);
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        let _clients = endpoint.connect_many(2);
        let _connections = owner.take(&mut acceptor, served);
        assert_eq!(acceptor.ready().count(), 0);
        assert_eq!(acceptor.state() == State::Full, gate.is_some());
    }
}

#[test]
fn into_owned_fd_releases_the_permit_alone() {
    let (socket, endpoint) = Kind::Tcp4.listen();
    let gate = Gate::new(1);
    let mut owner = Owner::new();
    let listener = std::net::TcpListener::from(socket);
    let mut acceptor = LevelTriggered::on(listener).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
    let client = endpoint.connect();
    let connection = owner.take(&mut acceptor, 1).remove(0);
    client.assert_served();
    let number = connection.as_raw_fd();
    assert_eq!(number, connection.as_fd().as_raw_fd());
    assert_eq!(gate.in_use(), 1);
    let fd = OwnedFd::from(connection);
    assert_eq!((fd.as_raw_fd(), gate.in_use()), (number, 0));
    client.assert_pending();
    serve(&fd);
    client.assert_served();
    drop(fd);
    assert_eq!(client.read_within(LONG), Read::End);
}

#[test]
fn with_peer_knows_the_peer_after_its_reset() {
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        for trigger in TRIGGERS {
            let (socket, endpoint) = kind.listen();
            let mut owner = Owner::new();
            let builder = trigger.on(AnySocket(socket)).with_peer();
            let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(2);
            let addresses: Vec<_> =
                clients.iter().map(|client| client.0.local_addr().unwrap().as_socket()).collect();
            clients.into_iter().for_each(Client::reset);
            for (connection, address) in owner.take(&mut acceptor, 2).into_iter().zip(addresses) {
                assert!(address.is_some());
                assert_eq!(connection.peer(), address);
                assert_eq!(connection.map(|stream| stream).peer(), address, "kept by map");
            }
        }
    }
    // Neither without `with_peer`, nor of a Unix socket.
    for (kind, with_peer) in [(Kind::Tcp4, false), (Kind::UnixStream, true)] {
        let (socket, endpoint) = kind.listen();
        let mut owner = Owner::new();
        let builder = Trigger::Level.on(AnySocket(socket));
        let builder = if with_peer { builder.with_peer() } else { builder };
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        let client = endpoint.connect();
        assert_eq!(owner.take(&mut acceptor, 1)[0].peer(), None);
        assert_all_served(&[client]);
    }
}
