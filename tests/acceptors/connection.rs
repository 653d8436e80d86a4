//! A connection and its permit: closed first, given back second, on every path.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use epoll_acceptor::admission::Bell;
use epoll_acceptor::{
    Acceptor, Admission, Connection, Gate, LevelTriggered, Line, Listener, Reserve, Trigger, Until,
};

use crate::support::{Client, HELLO, Kind, LISTENER, LONG, Owner, Read};

type Diary = Arc<Mutex<Vec<&'static str>>>;

/// Says when it is dropped.
struct Says(&'static str, Diary);

impl Drop for Says {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

fn connection() -> (Connection<Says, Says>, Diary) {
    let diary = Diary::default();
    (Connection::new(Says("stream", diary.clone()), Says("permit", diary.clone())), diary)
}

fn order(diary: &Diary) -> Vec<&'static str> {
    diary.lock().unwrap().clone()
}

#[test]
fn the_stream_is_dropped_before_the_permit() {
    let (connection, diary) = connection();
    drop(connection);
    assert_eq!(order(&diary), ["stream", "permit"]);
}

#[test]
fn map_keeps_the_order() {
    let (connection, diary) = connection();
    let mapped = connection.map(|stream| (stream, "and more"));
    assert_eq!(order(&diary), [""; 0]);
    drop(mapped);
    assert_eq!(order(&diary), ["stream", "permit"]);
}

#[test]
fn try_map_keeps_the_order_also_when_it_fails() {
    let (mapped, diary) = connection();
    let mapped = mapped.try_map(|stream| Ok::<_, ()>(Box::new(stream))).unwrap();
    assert_eq!(order(&diary), [""; 0]);
    drop(mapped);
    assert_eq!(order(&diary), ["stream", "permit"]);

    let (failing, diary) = connection();
    assert!(failing.try_map(|_| Err::<(), _>("no")).is_err());
    assert_eq!(order(&diary), ["stream", "permit"]);
}

#[test]
fn a_panic_in_map_keeps_the_order() {
    let (connection, diary) = connection();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = connection.map(|stream| -> Says {
            let _stream = stream;
            std::panic::resume_unwind(Box::new("no"))
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(order(&diary), ["stream", "permit"]);
}

#[test]
fn taken_apart_the_order_is_the_callers() {
    let (connection, diary) = connection();
    let (stream, permit) = connection.into_parts();
    drop(permit);
    drop(stream);
    assert_eq!(order(&diary), ["permit", "stream"]);
}

#[test]
fn it_reads_and_writes_as_its_stream_does() {
    let (socket, door) = Kind::UnixStream.listen();
    let mut owner = Owner::new();
    let listener = UnixListener::from(OwnedFd::from(socket));
    let mut acceptor = LevelTriggered::on(listener).register(&owner.epoll, LISTENER).unwrap();
    let client = door.connect();
    (&client.0).write_all(b"question").unwrap();
    let mut connection = owner.take(&mut acceptor, 1).remove(0);
    let mut heard = [0; 8];
    connection.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"question");
    connection.write_all(b"!").unwrap();
    connection.flush().unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(connection.as_fd().as_raw_fd(), connection.as_raw_fd());
    let mut answer = String::new();
    (&client.0).read_to_string(&mut answer).unwrap();
    assert_eq!(answer.as_bytes(), [HELLO, b"!"].concat());
}

/// A policy whose permits look, when they come back, whether the client has been hung up on.
#[derive(Clone, Default)]
struct Watching(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    client: Option<Client>,
    closed_at_return: Vec<bool>,
}

struct Place(Watching);

impl Drop for Place {
    fn drop(&mut self) {
        let mut seen = self.0.0.lock().unwrap();
        let client = seen.client.as_ref().unwrap();
        client.0.set_nonblocking(true).unwrap();
        // The end of the stream, as soon as the other side has been closed.
        let closed = matches!((&client.0).read(&mut [0; 64]), Ok(0));
        seen.closed_at_return.push(closed);
    }
}

impl Admission for Watching {
    type Permit = Place;

    fn reserve(&self) -> Reserve<Place> {
        Reserve::Room(Place(self.clone()))
    }

    fn cancel(&self, permit: Place) {
        std::mem::forget(permit);
    }

    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        if until == Until::Room { Line::Room } else { Line::Standing }
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<Self::Permit> {
        None
    }
}

/// A user's own stream.
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

/// A user's own listener.
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
fn the_descriptor_is_closed_when_the_permit_comes_back() {
    for way in 0..4 {
        let (socket, door) = Kind::UnixStream.listen();
        let policy = Watching::default();
        let owner = Owner::new();
        let listener = Sessions(UnixListener::from(OwnedFd::from(socket)));
        let mut acceptor =
            Trigger::Level.on(listener).admission(policy.clone()).register(&owner.epoll, LISTENER).unwrap();
        policy.0.lock().unwrap().client = Some(door.connect());
        let connection = acceptor.ready().next().unwrap().unwrap();
        match way {
            0 => drop(connection),
            1 => drop(connection.map(Box::new)),
            2 => drop(connection.try_map(|_| Err::<(), _>(()))),
            _ => drop(connection.map(|session| session.0).map(OwnedFd::from)),
        }
        assert_eq!(policy.0.lock().unwrap().closed_at_return, [true], "way {way}");
    }
}

/// A user's stream that cannot always be made.
struct Fragile(OwnedFd);

thread_local! {
    static UNTIL_BROKEN: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl From<OwnedFd> for Fragile {
    fn from(fd: OwnedFd) -> Self {
        UNTIL_BROKEN.set(UNTIL_BROKEN.get().wrapping_sub(1));
        if UNTIL_BROKEN.get() == 0 {
            std::panic::resume_unwind(Box::new("broken"));
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
fn a_conversion_that_panics_costs_its_own_connection_and_no_other() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        for nth in 1..=3 {
            let (socket, door) = Kind::Tcp4.listen();
            let gate = Gate::new(10);
            let mut owner = Owner::new();
            let listener = FragileListener(OwnedFd::from(socket));
            let mut acceptor = trigger.on(listener).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let clients = door.connect_many(3);
            UNTIL_BROKEN.set(nth);
            let (mut served, mut broken) = (0, 0);
            while served + broken < 3 {
                assert_eq!(owner.wait(LONG), 1, "{served} served, {broken} broken");
                let pass = std::panic::AssertUnwindSafe(|| {
                    for found in acceptor.ready() {
                        crate::support::serve(&found.unwrap());
                        served += 1;
                    }
                });
                broken += u32::from(std::panic::catch_unwind(pass).is_err());
            }
            let seen: Vec<_> = clients.iter().map(|client| client.read_within(LONG)).collect();
            let reads = |what| seen.iter().filter(|read| **read == what).count();
            assert_eq!((reads(Read::Served), reads(Read::End), broken), (2, 1, 1));
            assert_eq!(gate.in_use(), 0);
            assert!(acceptor.counters().is_balanced(), "{}", acceptor.counters());
        }
    }
}
