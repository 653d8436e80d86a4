//! The acceptors of this crate.
//!
//! With a gate, permits are held until the whole burst is delivered, and released inside the timed part: acquiring and
//! releasing are both in the figures. (Closing the connection is not, as for every engine.)

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use epoll_acceptor::{Builder, Gate, Permit, Trigger};

use crate::engines::calls::{self, bits};
use crate::engines::{Engine, Ours};
use crate::plans::LONGEST;

/// What tokio registers a stream for.
const EVERYTHING: u32 = bits(libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET);

struct Delivered {
    /// Whether each connection is registered on the epoll as well.
    registers: bool,
    taken: Vec<TcpStream>,
    permits: Vec<Permit>,
}

pub(crate) fn ungated(trigger: Trigger, listener: TcpListener) -> io::Result<Box<dyn Engine>> {
    start(trigger.on(listener), false)
}

pub(crate) fn gated(trigger: Trigger, listener: TcpListener) -> io::Result<Box<dyn Engine>> {
    start(trigger.on(listener).gate(&Gate::new(1_000_000)), false)
}

/// Registers the connections as well, edge-triggered and for everything, as tokio's accept does.
pub(crate) fn registered(trigger: Trigger, listener: TcpListener) -> io::Result<Box<dyn Engine>> {
    start(trigger.on(listener), true)
}

fn start(
    builder: Builder<TcpListener, (), impl Into<Option<Gate>>>,
    registers: bool,
) -> io::Result<Box<dyn Engine>> {
    let taken = Vec::with_capacity(LONGEST);
    let delivered = Delivered { registers, taken, permits: Vec::with_capacity(LONGEST) };
    Ok(Box::new(Ours::keeping(builder, delivered)?))
}

impl Engine for Ours<TcpListener, (), Delivered> {
    fn take(&mut self, count: usize) {
        while self.served.taken.len() < count {
            self.wait_and_pass(|served, connection, epoll| {
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
