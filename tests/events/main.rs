//! What a subscriber of `tracing` is told, on the real kernel.

use std::fmt::Debug;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epoll_acceptor::{Acceptor, Epoll, Events, Gate, LevelTriggered, Refusal, Token, WhenFull};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps the level and message of every event of this crate, and one field.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Level, String, u64)>>>);

impl Kept {
    fn take(&self) -> Vec<(Level, String, u64)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Messages only.
    fn said(&self) -> Vec<String> {
        self.take().into_iter().map(|(_, message, _)| message).collect()
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    refused: u64,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "refused" {
            self.refused = value;
        }
    }
}

impl Subscriber for Kept {
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
        self.0.lock().unwrap().push((*event.metadata().level(), fields.message, fields.refused));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Scene {
    epoll: Epoll,
    events: Events,
    listener: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { epoll: Epoll::new().unwrap(), events: Events::with_capacity(8).unwrap(), listener }
    }

    fn client(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).unwrap()
    }

    /// One wait, at most this long, and the passes that it asks for.
    fn turn<A: Acceptor<Stream = TcpStream>>(
        &mut self,
        acceptor: &mut A,
    ) -> Vec<epoll_acceptor::Connection<TcpStream, A::Permit>> {
        self.epoll.wait(&mut self.events, Some(Duration::from_secs(10))).unwrap();
        let due = (&mut self.events).count();
        (0..due).flat_map(|_| acceptor.ready().filter_map(Result::ok).collect::<Vec<_>>()).collect()
    }
}

#[test]
fn every_change_of_state_is_told_once() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let mut scene = Scene::new();
    let gate = Gate::new(1);
    let mut acceptor = LevelTriggered::on(scene.listener.try_clone().unwrap())
        .gate(&gate)
        .register(&scene.epoll, Token(1))
        .unwrap();
    let control = acceptor.control();
    let clients = [scene.client(), scene.client()];
    let held = scene.turn(&mut acceptor);
    assert_eq!(held.len(), 1);
    assert_eq!(kept.said(), ["full"]);
    drop(held);
    let held = scene.turn(&mut acceptor);
    assert_eq!((held.len(), kept.said()), (1, vec!["open again".to_owned()]));
    control.pause();
    scene.turn(&mut acceptor);
    assert_eq!(kept.said(), ["paused"]);
    control.resume();
    scene.turn(&mut acceptor);
    assert_eq!(kept.said(), ["resumed"]);
    drop((held, clients));
    socket2::SockRef::from(&scene.listener.as_fd()).shutdown(std::net::Shutdown::Read).unwrap();
    scene.turn(&mut acceptor);
    let told = kept.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0, told[0].1.as_str()), (Level::ERROR, "dead: the listener accepts no more"));
}

#[test]
fn refusals_are_told_at_most_once_a_second() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let mut scene = Scene::new();
    let gate = Gate::new(0).when_full(WhenFull::Shed(Refusal::Reset));
    let mut acceptor = LevelTriggered::on(scene.listener.try_clone().unwrap())
        .gate(&gate)
        .register(&scene.epoll, Token(1))
        .unwrap();
    let began = std::time::Instant::now();
    let clients: Vec<_> = (0..50).map(|_| scene.client()).collect();
    while acceptor.counters().refused < 50 {
        assert!(scene.turn(&mut acceptor).is_empty());
    }
    let told = kept.take();
    let most = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&told.len()), "{told:?}");
    assert_eq!((told[0].0, told[0].1.as_str(), told[0].2), (Level::WARN, "refused", 1));
    drop(clients);
}

#[test]
fn stopped_is_told() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let mut scene = Scene::new();
    let mut acceptor =
        LevelTriggered::on(scene.listener.try_clone().unwrap()).register(&scene.epoll, Token(1)).unwrap();
    acceptor.control().stop();
    scene.turn(&mut acceptor);
    assert_eq!(kept.said(), ["stopped"]);
}
