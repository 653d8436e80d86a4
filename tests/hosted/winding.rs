//! A service in a tokio runtime ends, and nobody who is queued is reset.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use epoll_acceptor::{Gate, Intake, LevelTriggered, Pending, Refusal, ShutdownReport, Trigger};
use tokio::runtime::Builder;

use crate::support::{LONG, assert_all_served, connect_many, listen, on_each, serve};

const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];

fn came_to(farewell: &ShutdownReport) -> (u64, u64, Option<u32>) {
    (farewell.served, farewell.refused, farewell.left)
}

/// The end of what a client hears, orderly or not.
fn hear_all(client: &TcpStream) -> Result<Vec<u8>, ErrorKind> {
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut heard = Vec::new();
    (&*client).read_to_end(&mut heard).map(|_| heard).map_err(|error| error.kind())
}

fn assert_kept_out(address: SocketAddr) {
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(40)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn who_is_queued_is_served_and_who_comes_is_kept_out() {
    on_each(|| async {
        for trigger in TRIGGERS {
            let (listener, address) = listen();
            // More than a pass takes.
            let clients = connect_many(address, 70);
            let acceptor = trigger.on(listener).into_async().unwrap();
            let mut ending =
                acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG).settle(Duration::from_millis(20));
            assert_eq!(ending.barred(), Intake::HandshakesOnly);
            assert_kept_out(address);
            while let Some(connection) = ending.accept().await.unwrap() {
                serve(&*connection);
            }
            assert!(ending.accept().await.unwrap().is_none(), "over is over");
            assert_eq!(came_to(&ending.finish()), (70, 0, Some(0)));
            assert_all_served(&clients);
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

/// What was told before the end began, and has been forgotten by the runtime.
#[test]
fn it_may_begin_in_the_middle_of_a_pass_or_after_all_were_quiet() {
    on_each(|| async {
        for trigger in TRIGGERS {
            for before in 0..3 {
                let (listener, address) = listen();
                let gate = Gate::new(2);
                let mut acceptor = trigger.on(listener).gate(&gate).into_async().unwrap();
                let clients = connect_many(address, 5);
                let mut kept = Vec::new();
                for _ in 0..before {
                    let connection = acceptor.accept().await.unwrap().unwrap();
                    serve(&*connection);
                    kept.push(connection);
                }
                if before == 2 {
                    // Full, and quiet.
                    let more = tokio::time::timeout(Duration::from_millis(5), acceptor.accept()).await;
                    assert!(more.is_err());
                }
                let mut ending =
                    acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG).settle(Duration::ZERO);
                drop(kept);
                while let Some(connection) = ending.accept().await.unwrap() {
                    serve(&*connection);
                }
                assert_eq!(came_to(&ending.finish()), (5 - before, 0, Some(0)));
                assert_all_served(&clients);
                assert_eq!(gate.in_use(), 0);
            }
        }
    });
}

#[test]
fn places_that_come_back_serve_the_rest_and_the_deadline_refuses_it() {
    on_each(|| async {
        let (listener, address) = listen();
        let gate = Gate::new(1);
        let acceptor = LevelTriggered::on(listener).gate(&gate).into_async().unwrap();
        let clients = connect_many(address, 5);
        let rest = Pending::Serve(Refusal::message("too late"));
        let mut ending = acceptor.wind_down(rest, Duration::from_millis(400));
        for _ in 0..3 {
            // Dropped before the next is asked for.
            serve(&*ending.accept().await.unwrap().unwrap());
        }
        let held = ending.accept().await.unwrap().unwrap();
        serve(&*held);
        assert!(ending.accept().await.unwrap().is_none(), "nobody leaves");
        assert_eq!(came_to(&ending.finish()), (4, 1, Some(0)));
        assert_all_served(&clients[..4]);
        assert_eq!(hear_all(&clients[4]).unwrap(), b"too late");
        drop(held);
        assert_eq!(gate.in_use(), 0);
    });
}

/// As busy as a server may be: there is always one more to be had.
#[test]
fn the_deadline_comes_while_connections_are_still_to_be_had() {
    on_each(|| async {
        let (listener, address) = listen();
        let acceptor = LevelTriggered::on(listener).into_async().unwrap();
        let clients = connect_many(address, 100);
        let rest = Pending::Serve(Refusal::message("too late"));
        let mut ending = acceptor.wind_down(rest, Duration::from_millis(50));
        let mut served = 0;
        while let Some(connection) = ending.accept().await.unwrap() {
            serve(&*connection);
            served += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(ending.accept().await.unwrap().is_none(), "over is over");
        assert!(served < 50, "each takes 10 ms, of 50");
        assert_eq!(came_to(&ending.finish()), (served, 100 - served, Some(0)));
        let served = usize::try_from(served).unwrap();
        assert_all_served(&clients[..served]);
        assert!(clients[served..].iter().all(|client| hear_all(client).unwrap() == b"too late"));
    });
}

/// The longest there is, as for "until it is done".
#[test]
fn a_deadline_that_never_comes_is_none() {
    on_each(|| async {
        let (listener, address) = listen();
        let clients = connect_many(address, 3);
        let acceptor = LevelTriggered::on(listener).into_async().unwrap();
        let mut ending =
            acceptor.wind_down(Pending::Serve(Refusal::Reset), Duration::MAX).settle(Duration::MAX);
        for _ in 0..3 {
            serve(&*ending.accept().await.unwrap().unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(20), ending.accept()).await;
        assert!(more.is_err(), "it settles for ever");
        assert_eq!(came_to(&ending.finish()), (3, 0, Some(0)));
        assert_all_served(&clients);
    });
}

#[test]
fn a_rest_to_refuse_is_refused_at_once() {
    on_each(|| async {
        let (listener, address) = listen();
        let acceptor = LevelTriggered::on(listener).into_async().unwrap();
        let clients = connect_many(address, 100);
        let mut ending = acceptor
            .wind_down(Pending::Refuse(Refusal::message("bye")), LONG)
            .settle(Duration::from_millis(10));
        assert!(ending.accept().await.unwrap().is_none());
        assert_eq!(came_to(&ending.finish()), (0, 100, Some(0)));
        assert!(clients.iter().all(|client| hear_all(client).unwrap() == b"bye"));
    });
}

#[test]
fn a_unix_listener_refuses_newcomers_and_is_over_when_its_queue_is_empty() {
    on_each(|| async {
        let path = std::env::temp_dir().join(format!("epoll-acceptor-winding-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let acceptor = LevelTriggered::on(UnixListener::bind(&path).unwrap()).into_async().unwrap();
        let clients: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let mut ending = acceptor.wind_down(Pending::Serve(Refusal::Reset), LONG);
        assert_eq!(ending.barred(), Intake::Closed);
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let mut served = 0;
        while let Some(connection) = ending.accept().await.unwrap() {
            serve(&*connection);
            served += 1;
        }
        assert_eq!((served, came_to(&ending.finish())), (5, (5, 0, Some(0))));
        drop(clients);
        let _ = std::fs::remove_file(&path);
    });
}

/// Whoever is asked by nobody is refused all the same.
#[test]
fn it_may_be_finished_at_any_time() {
    on_each(|| async {
        let (listener, address) = listen();
        let clients = connect_many(address, 3);
        let acceptor = LevelTriggered::on(listener).into_async().unwrap();
        let ending = acceptor.wind_down(Pending::Serve(Refusal::message("bye")), LONG);
        assert_eq!(came_to(&ending.finish()), (0, 3, Some(0)));
        assert!(clients.iter().all(|client| hear_all(client).unwrap() == b"bye"));
    });
}

#[test]
fn in_a_runtime_that_has_ended_nobody_is_served_and_nobody_reset() {
    let (listener, address): (TcpListener, SocketAddr) = listen();
    let clients = connect_many(address, 3);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let acceptor = runtime.block_on(async { LevelTriggered::on(listener).into_async().unwrap() });
    drop(runtime);
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let mut ending = {
        let _entered = other.enter();
        acceptor.wind_down(Pending::Serve(Refusal::message("bye")), LONG)
    };
    // In the other it serves: it was taken out of the one that has ended.
    let first = other.block_on(ending.accept()).unwrap().unwrap();
    serve(&*first);
    drop(other);
    assert_eq!(came_to(&ending.finish()), (1, 2, Some(0)));
    assert_all_served(&clients[..1]);
    assert!(clients[1..].iter().all(|client| hear_all(client).unwrap() == b"bye"));
}
