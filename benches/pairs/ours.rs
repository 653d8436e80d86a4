//! The acceptors of this crate.
//!
//! Where there is a gate, its permits are held until the whole burst is delivered and given back inside the timed part:
//! reserving and releasing are both paid for. (Closing the connection is not, as for every engine.)

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use epoll_acceptor::{
    Acceptor, Admission, Builder, EdgeTriggered, Epoll, EpollAcceptor, Events, Exclusive, Gate,
    LevelTriggered, Strategy, Token, Trigger,
};

use crate::by_hand;
use crate::engine::{Engine, listen};

const LISTENER: Token = Token(1);
/// What tokio registers a stream for.
const EVERYTHING: u32 = by_hand::bits(libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET);

struct Ours<S: Strategy, A: Admission> {
    epoll: Epoll,
    events: Events,
    acceptor: EpollAcceptor<TcpListener, S, A>,
    /// Whether each connection is put on the epoll as well.
    registers: bool,
    taken: Vec<TcpStream>,
    permits: Vec<A::Permit>,
}

pub(crate) fn level() -> io::Result<Box<dyn Engine>> {
    start(LevelTriggered::on(listen()?), false)
}

pub(crate) fn level_gated() -> io::Result<Box<dyn Engine>> {
    start(LevelTriggered::on(listen()?).gate(&gate()), false)
}

/// What tokio's accept does besides: the connection is registered, edge-triggered, for everything.
pub(crate) fn level_registered() -> io::Result<Box<dyn Engine>> {
    start(LevelTriggered::on(listen()?), true)
}

pub(crate) fn edge() -> io::Result<Box<dyn Engine>> {
    start(EdgeTriggered::on(listen()?), false)
}

pub(crate) fn edge_gated() -> io::Result<Box<dyn Engine>> {
    start(EdgeTriggered::on(listen()?).gate(&gate()), false)
}

pub(crate) fn exclusive() -> io::Result<Box<dyn Engine>> {
    start(Exclusive::on(listen()?), false)
}

pub(crate) fn exclusive_gated() -> io::Result<Box<dyn Engine>> {
    start(Exclusive::on(listen()?).gate(&gate()), false)
}

pub(crate) fn trigger_level() -> io::Result<Box<dyn Engine>> {
    start(Trigger::Level.on(listen()?), false)
}

pub(crate) fn trigger_edge() -> io::Result<Box<dyn Engine>> {
    start(Trigger::Edge.on(listen()?), false)
}

fn gate() -> Gate {
    Gate::new(1_000_000)
}

fn start<S: Strategy + 'static, A: Admission + 'static>(
    acceptor: Builder<TcpListener, S, A>,
    registers: bool,
) -> io::Result<Box<dyn Engine>> {
    let epoll = Epoll::new()?;
    Ok(Box::new(Ours {
        acceptor: acceptor.register(&epoll, LISTENER)?,
        events: Events::with_capacity(64)?,
        epoll,
        registers,
        taken: Vec::with_capacity(4096),
        permits: Vec::with_capacity(4096),
    }))
}

impl<S: Strategy, A: Admission> Engine for Ours<S, A> {
    fn address(&self) -> SocketAddr {
        self.acceptor.listener().local_addr().expect("an address")
    }

    fn take(&mut self, burst: usize) {
        while self.taken.len() < burst {
            self.epoll.wait(&mut self.events, None).expect("a wait");
            for event in &mut self.events {
                assert_eq!(event.token(), LISTENER, "the listener is the only one");
                for connection in self.acceptor.ready() {
                    let (stream, permit) = connection.expect("a listener that listens").into_parts();
                    if self.registers {
                        by_hand::control(&self.epoll, libc::EPOLL_CTL_ADD, &stream, EVERYTHING)
                            .expect("a registration");
                    }
                    self.taken.push(stream);
                    self.permits.push(permit);
                }
            }
        }
        self.permits.clear();
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn release(&mut self) {
        self.taken.clear();
    }
}
