//! The ways in which workers share an address.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use epoll_acceptor::{Epoll, EpollAcceptor, Trigger};
use socket2::{Domain, Socket, Type};

use crate::worker::{LISTENER, Source, Worker};

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

    /// Returns the workers, ready to run.
    pub(crate) fn open(self, workers: usize) -> (SocketAddr, Vec<Worker>) {
        match self {
            Self::SharedLevel => shared(workers, Trigger::Level),
            Self::SharedEdge => shared(workers, Trigger::Edge),
            Self::EachLevel => each(workers, Trigger::Level),
            Self::EachExclusive => each(workers, Trigger::Exclusive),
            Self::ReusePort => listener_each(workers),
        }
    }
}

fn shared(workers: usize, trigger: Trigger) -> (SocketAddr, Vec<Worker>) {
    let (listener, address) = listen(0);
    let epoll = Arc::new(Epoll::new().expect("an epoll"));
    let acceptor = Arc::new(Mutex::new(register(trigger, listener, &epoll)));
    let worker = |_| Worker::new(Arc::clone(&epoll), Source::Shared(Arc::clone(&acceptor)));
    (address, (0..workers).map(worker).collect())
}

fn each(workers: usize, trigger: Trigger) -> (SocketAddr, Vec<Worker>) {
    let (listener, address) = listen(0);
    let worker = |_| own(trigger, listener.try_clone().expect("a descriptor"));
    (address, (0..workers).map(worker).collect())
}

fn listener_each(workers: usize) -> (SocketAddr, Vec<Worker>) {
    let (first, address) = listen(0);
    let others = (1..workers).map(|_| listen(address.port()).0);
    (address, std::iter::once(first).chain(others).map(|listener| own(Trigger::Level, listener)).collect())
}

fn own(trigger: Trigger, listener: TcpListener) -> Worker {
    let epoll = Arc::new(Epoll::new().expect("an epoll"));
    let acceptor = register(trigger, listener, &epoll);
    Worker::new(epoll, Source::Own(Box::new(acceptor)))
}

fn register(trigger: Trigger, listener: TcpListener, epoll: &Epoll) -> EpollAcceptor<TcpListener> {
    trigger.on(listener).register(epoll, LISTENER).expect("a registration")
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
