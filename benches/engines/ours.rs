//! This crate's acceptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use epoll_acceptor::{
    Acceptor, Admission, Builder, Connection, Epoll, EpollAcceptor, Events, Listener, Strategy, Token,
};

use super::Engine;

pub type Served<L, A> = Connection<<L as Listener>::Stream, <A as Admission>::Permit>;

/// One acceptor on an epoll of its own, as the README shows it. `K` keeps whom it let in.
pub struct Ours<L: Listener, S: Strategy, A: Admission, K = Vec<Served<L, A>>> {
    pub epoll: Epoll,
    pub events: Events,
    pub acceptor: EpollAcceptor<L, S, A>,
    pub served: K,
}

const LISTENER: Token = Token(0);

impl<L: Listener, S: Strategy, A: Admission> Ours<L, S, A> {
    /// Room for so many connections at once is made here, once.
    pub fn new(builder: Builder<L, S, A>, room: usize) -> Self {
        Self::keeping(builder, Vec::with_capacity(room)).expect("a registration")
    }
}

impl<L: Listener, S: Strategy, A: Admission, K> Ours<L, S, A, K> {
    pub fn keeping(builder: Builder<L, S, A>, served: K) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let acceptor = builder.register(&epoll, LISTENER)?;
        Ok(Self { epoll, events: Events::with_capacity(64)?, acceptor, served })
    }

    /// Waits once, and begins a pass for each event.
    pub fn turn(&mut self, keep: impl Fn(&mut K, Served<L, A>, &Epoll)) {
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

impl<L: Listener, S: Strategy, A: Admission> Engine for Ours<L, S, A> {
    fn take(&mut self, count: usize) {
        while self.served.len() < count {
            self.turn(|served, connection, _| served.push(connection));
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.served.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.served.clear();
    }
}
