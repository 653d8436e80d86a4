//! The acceptors of this crate.
//!
//! Where there is a gate, its permits are held until the whole burst is delivered and given back inside the timed part:
//! reserving and releasing are both paid for. (Closing the connection is not, as for every engine.)

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use epoll_acceptor::{Admission, Builder, Gate, Strategy};

use crate::engines::calls::{self, bits};
use crate::engines::{Engine, Ours};
use crate::plans::ROOM;

/// What tokio registers a stream for.
const EVERYTHING: u32 = bits(libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET);

struct Delivered<P> {
    /// Whether each connection is put on the epoll as well.
    registers: bool,
    taken: Vec<TcpStream>,
    permits: Vec<P>,
}

pub(crate) fn free<S: Strategy + 'static>(builder: Builder<TcpListener, S>) -> io::Result<Box<dyn Engine>> {
    start(builder, false)
}

pub(crate) fn gated<S: Strategy + 'static>(builder: Builder<TcpListener, S>) -> io::Result<Box<dyn Engine>> {
    start(builder.gate(&Gate::new(1_000_000)), false)
}

/// What tokio's accept does besides: the connection is registered, edge-triggered, for everything.
pub(crate) fn registered<S: Strategy + 'static>(
    builder: Builder<TcpListener, S>,
) -> io::Result<Box<dyn Engine>> {
    start(builder, true)
}

fn start<S: Strategy + 'static, A: Admission + 'static>(
    builder: Builder<TcpListener, S, A>,
    registers: bool,
) -> io::Result<Box<dyn Engine>> {
    let delivered: Delivered<A::Permit> =
        Delivered { registers, taken: Vec::with_capacity(ROOM), permits: Vec::with_capacity(ROOM) };
    Ok(Box::new(Ours::keeping(builder, delivered)?))
}

impl<S: Strategy, A: Admission> Engine for Ours<TcpListener, S, A, Delivered<A::Permit>> {
    fn take(&mut self, count: usize) {
        while self.served.taken.len() < count {
            self.turn(|served, connection, epoll| {
                let (stream, permit) = connection.into_parts();
                if served.registers {
                    calls::control(epoll, libc::EPOLL_CTL_ADD, &stream, EVERYTHING).expect("a registration");
                }
                served.taken.push(stream);
                served.permits.push(permit);
            });
        }
        self.served.permits.clear();
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.served.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.served.taken.clear();
    }
}
