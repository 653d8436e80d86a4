//! This crate's acceptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use epoll_acceptor::socket::Listener;
use epoll_acceptor::{
    Acceptor, Builder, Connection, Epoll, EpollAcceptor, Events, Filter, Gate, Permit, Token,
};

use super::Engine;

pub type Accepted<L, F> = Connection<<L as Listener>::Stream, Permit<<F as Filter>::Permit>>;

/// One acceptor on an epoll of its own, as in the README. `K` keeps the accepted connections.
pub struct Ours<L: Listener, F: Filter = (), K = Vec<Accepted<L, F>>> {
    pub epoll: Epoll,
    pub events: Events,
    pub acceptor: EpollAcceptor<L, F>,
    pub served: K,
}

const LISTENER: Token = Token(0);

impl<L: Listener, F: Filter> Ours<L, F> {
    /// Allocates memory for `capacity` connections at once, here and never later.
    pub fn new(builder: Builder<L, F, impl Into<Option<Gate>>>, capacity: usize) -> Self {
        Self::keeping(builder, Vec::with_capacity(capacity)).expect("a registration")
    }
}

impl<L: Listener, F: Filter, K> Ours<L, F, K> {
    pub fn keeping(builder: Builder<L, F, impl Into<Option<Gate>>>, served: K) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let acceptor = builder.register(&epoll, LISTENER)?;
        Ok(Self { epoll, events: Events::with_capacity(64)?, acceptor, served })
    }

    /// Waits once, and begins a pass for each event.
    pub fn wait_and_pass(&mut self, keep: impl Fn(&mut K, Accepted<L, F>, &Epoll)) {
        self.epoll.wait(&mut self.events, None).expect("a wait");
        for event in &mut self.events {
            match event.token() {
                LISTENER => {
                    for connection in self.acceptor.ready() {
                        let connection = connection.expect("a listener that listens");
                        keep(&mut self.served, connection, &self.epoll);
                    }
                }
                other => unreachable!("{other:?}"),
            }
        }
    }
}

impl<L: Listener, F: Filter> Engine for Ours<L, F> {
    fn take(&mut self, count: usize) {
        while self.served.len() < count {
            self.wait_and_pass(|served, connection, _| served.push(connection));
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.served.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.served.clear();
    }
}
