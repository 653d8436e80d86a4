//! The ways in which workers share an address.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use epoll_acceptor::{EdgeTriggered, Epoll, Exclusive, LevelTriggered};
use socket2::{Domain, Socket, Type};

use crate::worker::{Door, Entrance, LISTENER, Worker};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One epoll for all, one level-triggered acceptor behind a lock.
    SharedLevel,
    /// One epoll for all, one edge-triggered acceptor behind a lock.
    SharedEdge,
    /// An epoll each; the listener is registered in all of them, level-triggered.
    EachLevel,
    /// An epoll each; the listener is registered in all of them, exclusively.
    EachExclusive,
    /// An epoll and a listener each (SO_REUSEPORT): the kernel spreads the connections by a hash.
    ReusePort,
}

impl Way {
    pub(crate) const ALL: [Self; 5] =
        [Self::SharedLevel, Self::SharedEdge, Self::EachLevel, Self::EachExclusive, Self::ReusePort];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SharedLevel => "one epoll, level",
            Self::SharedEdge => "one epoll, edge",
            Self::EachLevel => "epoll each, level",
            Self::EachExclusive => "epoll each, exclusive",
            Self::ReusePort => "listener each",
        }
    }

    /// So many workers, ready to run.
    pub(crate) fn open(self, workers: usize) -> (SocketAddr, Vec<Worker>) {
        match self {
            Self::SharedLevel => shared(workers, |epoll, listener| {
                Box::new(LevelTriggered::on(listener).register(epoll, LISTENER).expect("a registration"))
            }),
            Self::SharedEdge => shared(workers, |epoll, listener| {
                Box::new(EdgeTriggered::on(listener).register(epoll, LISTENER).expect("a registration"))
            }),
            Self::EachLevel => each(workers, |epoll, listener| {
                Box::new(LevelTriggered::on(listener).register(epoll, LISTENER).expect("a registration"))
            }),
            Self::EachExclusive => each(workers, |epoll, listener| {
                Box::new(Exclusive::on(listener).register(epoll, LISTENER).expect("a registration"))
            }),
            Self::ReusePort => listener_each(workers),
        }
    }
}

fn shared(workers: usize, door: fn(&Epoll, TcpListener) -> Box<dyn Door>) -> (SocketAddr, Vec<Worker>) {
    let (listener, address) = listen(0);
    let epoll = Arc::new(Epoll::new().expect("an epoll"));
    let door = Arc::new(Mutex::new(door(&epoll, listener)));
    let worker = |_| Worker::new(Arc::clone(&epoll), Entrance::Shared(Arc::clone(&door)));
    (address, (0..workers).map(worker).collect())
}

fn each(workers: usize, door: fn(&Epoll, TcpListener) -> Box<dyn Door>) -> (SocketAddr, Vec<Worker>) {
    let (listener, address) = listen(0);
    let worker = |_| {
        let epoll = Arc::new(Epoll::new().expect("an epoll"));
        let door = door(&epoll, listener.try_clone().expect("a descriptor"));
        Worker::new(epoll, Entrance::Own(door))
    };
    (address, (0..workers).map(worker).collect())
}

fn listener_each(workers: usize) -> (SocketAddr, Vec<Worker>) {
    let (first, address) = listen(0);
    let others = (1..workers).map(|_| listen(address.port()).0);
    let worker = |listener| {
        let epoll = Arc::new(Epoll::new().expect("an epoll"));
        let door = LevelTriggered::on(listener).register(&epoll, LISTENER).expect("a registration");
        Worker::new(epoll, Entrance::Own(Box::new(door)))
    };
    (address, std::iter::once(first).chain(others).map(worker).collect())
}

fn listen(port: u16) -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("a port to share");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("an address");
    socket.listen(4096).expect("a listener");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    (listener, address)
}
