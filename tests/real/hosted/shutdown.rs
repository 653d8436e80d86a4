//! A graceful shutdown in a tokio runtime, and of a hosted acceptor: no pending connection is reset.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use epoll_acceptor::acceptor::{Intake, IntoTokio};
use epoll_acceptor::socket::Listener;
use epoll_acceptor::{
    AsyncAcceptor, Builder, Epoll, Events, Gate, Interest, LevelTriggered, Pending, Progress, Refusal,
    ShutdownReport, State, Token, Trigger,
};

use crate::support::{LONG, assert_all_served, connect_many, listen, on_each, serve};

const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];

fn outcome(report: &ShutdownReport) -> (u64, u64, Option<u32>) {
    (report.served, report.refused, report.abandoned)
}

/// Accepts until `None`, serves each connection, and returns the report.
async fn serve_to_the_end<L>(acceptor: &mut AsyncAcceptor<L>) -> ShutdownReport
where
    L: Listener<Stream: IntoTokio<Stream: AsFd>>,
{
    while let Some(connection) = acceptor.accept().await.unwrap() {
        serve(&*connection);
    }
    assert!(acceptor.accept().await.unwrap().is_none(), "the end is final");
    assert_eq!(acceptor.state(), State::Stopped);
    acceptor.shutdown_report().expect("a report")
}

fn short_grace(trigger: Trigger, listener: TcpListener) -> Builder<TcpListener> {
    trigger.on(listener).handshake_grace(Duration::from_millis(10))
}

/// Reads to the end of the stream; a reset is an error.
fn read_all(client: &TcpStream) -> Result<Vec<u8>, ErrorKind> {
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut received = Vec::new();
    (&*client).read_to_end(&mut received).map(|_| received).map_err(|error| error.kind())
}

fn assert_kept_out(address: SocketAddr) {
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(40)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn shutdown_serves_the_queue_and_closes_the_intake() {
    on_each(|| async {
        for trigger in TRIGGERS {
            let (listener, address) = listen();
            // More than a pass serves.
            let clients = connect_many(address, 70);
            let mut acceptor = short_grace(trigger, listener).build_tokio().unwrap();
            acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
            serve(&*acceptor.accept().await.unwrap().unwrap());
            assert_kept_out(address);
            let report = serve_to_the_end(&mut acceptor).await;
            assert_eq!(report.intake, Intake::HandshakesOnly);
            assert_eq!(outcome(&report), (70, 0, Some(0)));
            assert_all_served(&clients);
            drop(acceptor);
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn shutdown_begins_at_any_point_of_a_pass() {
    on_each(|| async {
        for trigger in TRIGGERS {
            for before in 0..3 {
                let (listener, address) = listen();
                let gate = Gate::new(2);
                let mut acceptor = short_grace(trigger, listener).gate(&gate).build_tokio().unwrap();
                let clients = connect_many(address, 5);
                let mut kept = Vec::new();
                for _ in 0..before {
                    let connection = acceptor.accept().await.unwrap().unwrap();
                    serve(&*connection);
                    kept.push(connection);
                }
                if before == 2 {
                    // The gate is full, and the runtime has seen no readiness since.
                    let more = tokio::time::timeout(Duration::from_millis(5), acceptor.accept()).await;
                    assert!(more.is_err());
                }
                acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
                drop(kept);
                let report = serve_to_the_end(&mut acceptor).await;
                assert_eq!(outcome(&report), (5 - before, 0, Some(0)), "{trigger:?} {before}");
                assert_all_served(&clients);
                assert_eq!(gate.in_use(), 0);
            }
        }
    });
}

#[test]
fn shutdown_wakes_a_pending_accept() {
    on_each(|| async {
        for trigger in TRIGGERS {
            let (listener, address) = listen();
            let mut acceptor = short_grace(trigger, listener).build_tokio().unwrap();
            let control = acceptor.control();
            let accepting = tokio::spawn(async move { serve_to_the_end(&mut acceptor).await });
            tokio::task::yield_now().await;
            std::thread::spawn(move || control.shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG));
            assert_eq!(outcome(&accepting.await.unwrap()), (0, 0, Some(0)));
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn released_permits_serve_until_the_deadline() {
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(1);
        let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio().unwrap();
        let clients = connect_many(address, 5);
        let pending = Pending::Serve(Refusal::message("too late"));
        acceptor.control().shutdown_gracefully(pending, Duration::from_millis(400));
        for _ in 0..3 {
            // Dropped before the next accept.
            serve(&*acceptor.accept().await.unwrap().unwrap());
        }
        let held = acceptor.accept().await.unwrap().unwrap();
        serve(&*held);
        let report = serve_to_the_end(&mut acceptor).await;
        assert_eq!(outcome(&report), (4, 1, Some(0)));
        assert_all_served(&clients[..4]);
        assert_eq!(read_all(&clients[4]).unwrap(), b"too late");
        drop(held);
        assert_eq!(gate.in_use(), 0);
    });
}

/// Under load: a connection is always pending.
#[test]
fn deadline_comes_with_connections_pending() {
    on_each(|| async {
        let (listener, address) = listen();
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let clients = connect_many(address, 100);
        let pending = Pending::Serve(Refusal::message("too late"));
        acceptor.control().shutdown_gracefully(pending, Duration::from_millis(50));
        let mut served = 0;
        while let Some(connection) = acceptor.accept().await.unwrap() {
            serve(&*connection);
            served += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(acceptor.accept().await.unwrap().is_none(), "the end is final");
        assert!(served < 50, "each takes 10 ms, of 50");
        let report = acceptor.shutdown_report().unwrap();
        assert_eq!(outcome(&report), (served, 100 - served, Some(0)));
        let served = usize::try_from(served).unwrap();
        assert_all_served(&clients[..served]);
        assert!(clients[served..].iter().all(|client| read_all(client).unwrap() == b"too late"));
    });
}

#[test]
fn longest_deadline_and_grace_do_not_expire() {
    on_each(|| async {
        let (listener, address) = listen();
        let clients = connect_many(address, 3);
        let mut acceptor = LevelTriggered::on(listener).handshake_grace(Duration::MAX).build_tokio().unwrap();
        acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), Duration::MAX);
        for _ in 0..3 {
            serve(&*acceptor.accept().await.unwrap().unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(20), acceptor.accept()).await;
        assert!(more.is_err(), "the grace does not end");
        assert_eq!((acceptor.state(), acceptor.shutdown_report()), (State::Listening, None));
        acceptor.control().stop();
        assert_eq!(outcome(&serve_to_the_end(&mut acceptor).await), (3, 0, Some(0)));
        assert_all_served(&clients);
    });
}

#[test]
fn pending_connections_are_refused_at_once() {
    on_each(|| async {
        let (listener, address) = listen();
        let mut acceptor = short_grace(Trigger::Level, listener).build_tokio().unwrap();
        let clients = connect_many(address, 100);
        acceptor.control().shutdown_gracefully(Pending::Refuse(Refusal::message("bye")), LONG);
        assert_eq!(outcome(&serve_to_the_end(&mut acceptor).await), (0, 100, Some(0)));
        assert!(clients.iter().all(|client| read_all(client).unwrap() == b"bye"));
    });
}

#[test]
fn unix_shutdown_ends_with_its_queue() {
    on_each(|| async {
        let path = std::env::temp_dir().join(format!("epoll-acceptor-shutdown-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut acceptor = LevelTriggered::on(UnixListener::bind(&path).unwrap()).build_tokio().unwrap();
        let clients: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let begin = Instant::now();
        acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
        serve(&*acceptor.accept().await.unwrap().unwrap());
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let report = serve_to_the_end(&mut acceptor).await;
        assert_eq!((outcome(&report), report.intake), ((5, 0, Some(0)), Intake::Closed));
        assert!(begin.elapsed() < LONG, "not at the deadline");
        drop(clients);
        let _ = std::fs::remove_file(&path);
    });
}

/// The deadline has passed by the first poll.
#[test]
fn zero_deadline_refuses_in_one_poll() {
    on_each(|| async {
        let (listener, address) = listen();
        let clients = connect_many(address, 3);
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let pending = Pending::Serve(Refusal::message("bye"));
        acceptor.control().shutdown_gracefully(pending, Duration::ZERO);
        assert_eq!(outcome(&serve_to_the_end(&mut acceptor).await), (0, 3, Some(0)));
        assert!(clients.iter().all(|client| read_all(client).unwrap() == b"bye"));
    });
}

/// In an event loop that watches levels, and in one that watches edges.
#[test]
fn hosted_acceptor_ends_in_any_event_loop() {
    for trigger in TRIGGERS {
        for interest in [Interest::IN, Interest::IN | Interest::ET] {
            let (listener, address) = listen();
            let mut hosted = short_grace(trigger, listener).budget(4).build_hosted().unwrap();
            let outer = Epoll::new().unwrap();
            outer.add(&hosted, Token(1), interest).unwrap();
            let clients = connect_many(address, 20);
            hosted.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), LONG);
            let mut events = Events::with_capacity(4).unwrap();
            let mut stopped = false;
            while !stopped {
                assert!(outer.wait(&mut events, Some(LONG)).unwrap().count() > 0, "{}", hosted.counters());
                events.clear();
                loop {
                    match hosted.poll_accept().unwrap() {
                        Progress::Connection(connection) => serve(&*connection),
                        Progress::Yield => {}
                        Progress::Idle => break,
                        Progress::Stopped => {
                            stopped = true;
                            break;
                        }
                        Progress::ListenerClosed(closed) => panic!("{closed}"),
                    }
                }
            }
            assert_eq!(hosted.state(), State::Stopped);
            assert_eq!(outcome(&hosted.shutdown_report().unwrap()), (20, 0, Some(0)));
            assert_all_served(&clients);
        }
    }
}
