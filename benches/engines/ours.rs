//! This crate's acceptors.

use std::os::fd::AsFd;

use epoll_acceptor::{
    Acceptor, Admission, Builder, Connection, Epoll, EpollAcceptor, Events, Listener, Strategy, Token,
};

use super::Engine;

type Served<L, A> = Vec<Connection<<L as Listener>::Stream, <A as Admission>::Permit>>;

/// One acceptor on an epoll of its own, as the README shows it.
pub struct Ours<L: Listener, S: Strategy, A: Admission> {
    pub epoll: Epoll,
    pub events: Events,
    pub acceptor: EpollAcceptor<L, S, A>,
    pub served: Served<L, A>,
}

const LISTENER: Token = Token(0);

impl<L: Listener, S: Strategy, A: Admission> Ours<L, S, A> {
    /// Room for so many connections at once is made here, once.
    pub fn new(builder: Builder<L, S, A>, room: usize) -> Self {
        let epoll = Epoll::new().expect("an epoll");
        let acceptor = builder.register(&epoll, LISTENER).expect("a registration");
        let events = Events::with_capacity(64).expect("a buffer");
        Self { epoll, events, acceptor, served: Vec::with_capacity(room) }
    }

    /// Waits once, and begins a pass for each event.
    pub fn turn(&mut self) {
        self.epoll.wait(&mut self.events, None).expect("a wait");
        for event in &mut self.events {
            match event.token() {
                LISTENER => {
                    for connection in self.acceptor.ready() {
                        self.served.push(connection.expect("a listener that listens"));
                    }
                }
                other => unreachable!("{other:?}"),
            }
        }
    }
}

impl<L: Listener, S: Strategy, A: Admission> Engine for Ours<L, S, A> {
    fn take(&mut self, count: usize) {
        while self.served.len() < count {
            self.turn();
        }
    }

    fn close(&mut self) {
        self.served.clear();
    }
}

impl<L: Listener, S: Strategy, A: Admission> AsFd for Ours<L, S, A> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.acceptor.listener().as_fd()
    }
}
