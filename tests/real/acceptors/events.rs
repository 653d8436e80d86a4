//! The events that a subscriber of `tracing` gets, on the real kernel.

use std::fmt::Debug;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, Connection, Epoll, Events, Gate, LevelTriggered, Pending, Refusal, Token, WhenFull,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A subscriber that keeps the level and some fields of each event of this crate.
#[derive(Clone, Default)]
struct Log {
    events: Arc<Mutex<Vec<(Level, Fields)>>>,
    /// It panics at the first event with this message.
    panics_at: Option<&'static str>,
}

impl Log {
    fn take(&self) -> Vec<(Level, Fields)> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    /// Takes the messages alone.
    fn take_messages(&self) -> Vec<String> {
        self.take().into_iter().map(|(_, fields)| fields.message).collect()
    }
}

#[derive(Debug, Default)]
struct Fields {
    message: String,
    refused: u64,
    since: u64,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "refused" => self.refused = value,
            "since" => self.since = value,
            _ => {}
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "epoll_acceptor"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut events = self.events.lock().unwrap();
        let panics = self.panics_at == Some(&*fields.message)
            && events.iter().all(|(_, earlier)| earlier.message != fields.message);
        events.push((*event.metadata().level(), fields));
        drop(events);
        if panics {
            resume_unwind(Box::new("a subscriber"));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Sets a subscriber for this thread that panics at the first event with this message.
fn panic_at(message: &'static str) -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(Log { panics_at: Some(message), ..Log::default() })
}

struct Server {
    epoll: Epoll,
    events: Events,
    listener: TcpListener,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { epoll: Epoll::new().unwrap(), events: Events::with_capacity(8).unwrap(), listener }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).unwrap()
    }

    /// Waits once and runs a pass per event.
    fn run_passes<A: Acceptor<Stream = TcpStream>>(
        &mut self,
        acceptor: &mut A,
    ) -> Vec<Connection<TcpStream, A::Permit>> {
        self.epoll.wait(&mut self.events, Some(Duration::from_secs(10))).unwrap();
        let due = (&mut self.events).count();
        (0..due).flat_map(|_| acceptor.ready().filter_map(Result::ok).collect::<Vec<_>>()).collect()
    }
}

#[test]
fn transitions_are_reported_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let mut server = Server::new();
    let gate = Gate::new(1);
    let mut acceptor = LevelTriggered::on(server.listener.try_clone().unwrap())
        .gate(&gate)
        .register(&server.epoll, Token(1))
        .unwrap();
    let control = acceptor.control();
    let clients = [server.connect(), server.connect()];
    let held = server.run_passes(&mut acceptor);
    assert_eq!(held.len(), 1);
    assert_eq!(log.take_messages(), ["full"]);
    drop(held);
    let held = server.run_passes(&mut acceptor);
    assert_eq!((held.len(), log.take_messages()), (1, vec!["listening again".to_owned()]));
    let pause = control.pause();
    server.run_passes(&mut acceptor);
    assert_eq!(log.take_messages(), ["paused"]);
    drop(pause);
    server.run_passes(&mut acceptor);
    assert_eq!(log.take_messages(), ["resumed"]);
    drop((held, clients));
    socket2::SockRef::from(&server.listener.as_fd()).shutdown(std::net::Shutdown::Read).unwrap();
    server.run_passes(&mut acceptor);
    let events = log.take();
    assert_eq!(events.len(), 1, "{events:?}");
    let (level, fields) = &events[0];
    assert_eq!(
        (*level, fields.message.as_str()),
        (Level::ERROR, "closed: the listener does not listen any more")
    );
}

#[test]
fn refusals_are_reported_once_per_second() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let mut server = Server::new();
    let gate = Gate::builder(0).when_full(WhenFull::Shed(Refusal::Reset)).build();
    let mut acceptor = LevelTriggered::on(server.listener.try_clone().unwrap())
        .gate(&gate)
        .register(&server.epoll, Token(1))
        .unwrap();
    let begin = std::time::Instant::now();
    let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    while acceptor.counters().refused < 50 {
        assert!(server.run_passes(&mut acceptor).is_empty());
    }
    let events = log.take();
    let most = 1 + usize::try_from(begin.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&events.len()), "{events:?}");
    let (level, first) = &events[0];
    assert_eq!((*level, first.message.as_str(), first.refused, first.since), (Level::WARN, "refused", 1, 1));
    drop(clients);
    // The next event counts from the last one.
    let last = events.last().unwrap().1.refused;
    let next = loop {
        drop(server.connect());
        server.run_passes(&mut acceptor);
        if let Some((_, next)) = log.take().into_iter().find(|(_, fields)| fields.message == "refused") {
            break next;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no second event");
    };
    assert_eq!(next.since, next.refused - last);
}

#[test]
fn panic_of_a_subscriber_delays_a_shutdown_by_a_pass() {
    let _guard = panic_at("refused");
    let mut server = Server::new();
    let mut acceptor =
        LevelTriggered::on(server.listener.try_clone().unwrap()).register(&server.epoll, Token(1)).unwrap();
    let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    acceptor.control().shutdown_gracefully(Pending::Refuse(Refusal::Close), Duration::ZERO);
    let panicked = catch_unwind(AssertUnwindSafe(|| server.run_passes(&mut acceptor)));
    assert!(panicked.is_err() && acceptor.shutdown_report().is_none());
    while !acceptor.state().is_terminal() {
        assert!(server.run_passes(&mut acceptor).is_empty(), "P13: each wait of ten seconds has an event");
    }
    let report = acceptor.shutdown_report().expect("a report");
    assert_eq!((report.refused, report.abandoned), (3, Some(0)), "{report:?}");
    drop(clients);
}

#[test]
fn panic_of_a_subscriber_gives_the_permit_back() {
    for drains in [false, true] {
        let _guard = panic_at("listening again");
        let mut server = Server::new();
        let gate = Gate::new(1);
        let mut acceptor = LevelTriggered::on(server.listener.try_clone().unwrap())
            .gate(&gate)
            .register(&server.epoll, Token(1))
            .unwrap();
        let clients = [server.connect(), server.connect()];
        drop(server.run_passes(&mut acceptor));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            server.epoll.wait(&mut server.events, Some(Duration::from_secs(10))).unwrap();
            server.events.clear();
            if drains {
                acceptor.drain(drop).map(drop)
            } else {
                acceptor.ready().next().map_or(Ok(()), |c| c.map(drop))
            }
        }));
        assert!(panicked.is_err());
        assert_eq!(gate.in_use(), 0, "P4: although no pass has followed");
        assert_eq!(server.run_passes(&mut acceptor).len(), 1, "P13");
        drop(clients);
    }
}

#[test]
fn stop_is_reported() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let mut server = Server::new();
    let mut acceptor =
        LevelTriggered::on(server.listener.try_clone().unwrap()).register(&server.epoll, Token(1)).unwrap();
    acceptor.control().stop();
    server.run_passes(&mut acceptor);
    assert_eq!(log.take_messages(), ["stopped"]);
}
