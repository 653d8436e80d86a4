//! An acceptor that blocks: what wakes it, and what ends it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use epoll_acceptor::{
    BlockingAcceptor, Connection, Control, Gate, LevelTriggered, Pending, Refusal, State, Trigger,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::SockRef;

use crate::support::{HELLO, LONG, assert_all_served, connect_many, listen, listen_unix, serve};

type Acceptor = BlockingAcceptor<TcpListener>;

/// Accepts on a thread until the end, and sends each connection to the test.
fn accept_on_thread(
    mut acceptor: Acceptor,
) -> (Receiver<Connection<TcpStream>>, JoinHandle<Acceptor>, Control) {
    let control = acceptor.control();
    let (connections, received) = channel();
    let thread = thread::spawn(move || {
        for connection in acceptor.incoming() {
            connections.send(connection.unwrap()).unwrap();
        }
        acceptor
    });
    (received, thread, control)
}

fn wait_until(control: &Control, state: State) {
    let begin = Instant::now();
    while control.state() != state {
        assert!(begin.elapsed() < LONG, "{:?}, not {state:?}", control.state());
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_blocking(stream: &impl AsFd) -> bool {
    !OFlag::from_bits_retain(fcntl(stream.as_fd(), FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

#[test]
fn streams_are_blocking_and_close_on_exec() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        for with_peer in [false, true] {
            let (listener, address) = listen();
            let builder = trigger.on(listener);
            let builder = if with_peer { builder.with_peer() } else { builder };
            let mut acceptor = builder.build_blocking().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let connection = acceptor.accept().unwrap().unwrap();
            assert!(is_blocking(&connection));
            assert_eq!(fcntl(connection.as_fd(), FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
            assert_eq!(connection.peer(), with_peer.then(|| client.local_addr().unwrap()));
        }
    }
}

#[test]
fn unix_streams_are_served() {
    let (socket, address) = listen_unix("blocking");
    let listener = std::os::unix::net::UnixListener::from(socket);
    let mut acceptor = LevelTriggered::on(listener).build_blocking().unwrap();
    let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    client.connect(&address).unwrap();
    let mut connection = acceptor.accept().unwrap().unwrap();
    assert!(is_blocking(&connection));
    (&client).write_all(HELLO).unwrap();
    let mut received = [0; HELLO.len()];
    connection.read_exact(&mut received).unwrap();
    assert_eq!(received, HELLO);
}

#[test]
fn arrivals_permits_and_the_end_of_a_pause_wake_it() {
    let (listener, address) = listen();
    let gate = Gate::new(2);
    let acceptor = LevelTriggered::on(listener).gate(&gate).build_blocking().unwrap();
    let (connections, thread, control) = accept_on_thread(acceptor);
    let clients = connect_many(address, 5);
    let mut held: Vec<_> = (0..2).map(|_| connections.recv_timeout(LONG).unwrap()).collect();
    wait_until(&control, State::Full);
    let pause = control.pause();
    held.iter().for_each(serve);
    held.clear();
    wait_until(&control, State::Paused);
    drop(pause);
    for _ in 0..3 {
        serve(&connections.recv_timeout(LONG).unwrap());
    }
    assert_all_served(&clients);
    control.stop();
    assert!(thread.join().unwrap().accept().unwrap().is_none(), "the end is final");
    assert!(gate.wait_idle(Some(LONG)));
}

#[test]
fn shutdown_serves_the_queue_and_ends_the_iterator() {
    let (listener, address) = listen();
    let clients = connect_many(address, 70);
    let acceptor =
        LevelTriggered::on(listener).handshake_grace(Duration::from_millis(10)).build_blocking().unwrap();
    acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), LONG);
    let (connections, thread, _) = accept_on_thread(acceptor);
    connections.iter().for_each(|connection| serve(&connection));
    assert_all_served(&clients);
    let report = thread.join().unwrap().shutdown_report().unwrap();
    assert_eq!((report.served, report.refused, report.abandoned), (70, 0, Some(0)));
}

#[test]
fn closed_listener_is_reported_once() {
    let (listener, address): (_, SocketAddr) = listen();
    let copy = listener.try_clone().unwrap();
    let mut acceptor = LevelTriggered::on(listener).build_blocking().unwrap();
    let waiting = thread::spawn(move || (acceptor.accept().map(drop), acceptor));
    let _client = TcpStream::connect(address);
    let begin = Instant::now();
    while !waiting.is_finished() {
        assert!(begin.elapsed() < LONG, "it does not wake");
        // It may have accepted the client; then the next call is woken.
        let _ = SockRef::from(&copy).shutdown(Shutdown::Both);
        thread::sleep(Duration::from_millis(1));
    }
    let (mut accepted, mut acceptor) = waiting.join().unwrap();
    if accepted.is_ok() {
        accepted = acceptor.accept().map(drop);
    }
    assert_eq!(accepted.unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    assert!(acceptor.accept().unwrap().is_none());
    assert!(acceptor.incoming().next().is_none());
}
