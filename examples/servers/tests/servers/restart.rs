//! A server that is restarted under load, by a service manager that holds its sockets.
//!
//! Of `per_core` these are two, on one address: as `ReusePort=` with two `ListenStream=` makes them. No member leaves such
//! a group at the end: its queue stays with the socket, for the next process.
//!
//! A call of gRPC that crosses with the GOAWAY of a server that ends is sent again, as HTTP/2 asks: see
//! `has_crossed_goaway`.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};

use epoll_acceptor::handover;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::client::{Answer, Client};
use crate::server::Server;
use crate::{Program, eventually};

const GENERATIONS: u32 = 6;
/// Answers of each generation.
const ANSWERS: u32 = 100;

/// Sets it also when an assertion fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens listeners on one address.
fn listen(count: usize) -> (Vec<TcpListener>, SocketAddr) {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listeners = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(count > 1).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(4096).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        listeners.push(socket.into());
    }
    (listeners, address)
}

/// Each client connects, asks, reads its answer and leaves, over and over. Not one may fail.
pub(crate) fn under_load(program: &Program) {
    let (listeners, address) = listen(program.listeners);
    let start = || {
        let mut command = Command::new(program.path);
        command.stdout(Stdio::piped());
        let named: Vec<_> = listeners.iter().map(|listener| ("http", listener)).collect();
        Server::of(program, handover::spawn(command, &named).unwrap())
    };
    let (served, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let ask = || {
        while !over.load(Ordering::Relaxed) {
            assert_eq!(Client::connect(program.protocol, address).ask(), Answer::Served);
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let stop = SetOnDrop(&over);
        let mut server = start();
        for generation in 1..=GENERATIONS {
            let before = served.load(Ordering::Relaxed);
            eventually("clients are served", || {
                let has_failed = clients.iter().any(ScopedJoinHandle::is_finished);
                assert!(!has_failed, "{}, generation {generation}", program.path);
                served.load(Ordering::Relaxed) >= before + ANSWERS
            });
            // With a time without a server, and with a time in which both serve, in turn.
            let successor = (generation % 2 == 0).then(start);
            server.signal(Signal::SIGTERM);
            server.join();
            server = successor.unwrap_or_else(start);
        }
        drop(stop);
        clients.into_iter().for_each(|client| client.join().expect("no client fails"));
        server.signal(Signal::SIGTERM);
        server.join();
    });
}
