//! The acceptors of this crate.
//!
//! With a gate, permits are held until the whole burst is delivered, and released inside the timed part: acquiring and
//! releasing are both in the figures. (Closing the connection is not, as for every engine.)

use std::future::poll_fn;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use epoll_acceptor::{AsyncAcceptor, Builder, Gate, Permit, Trigger};
use tokio::runtime::{self, Runtime};

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

/// In tokio, with each stream registered, as tokio's own accept does.
pub(crate) fn in_tokio(trigger: Trigger, listener: TcpListener) -> io::Result<Box<dyn Engine>> {
    InTokio::boxed(trigger, listener, |acceptor, context| {
        acceptor.poll_accept(context).map(|accepted| Ok(accepted?.expect("not stopped").into_parts().0))
    })
}

/// In tokio, with the standard library's streams, which are not registered.
pub(crate) fn in_tokio_std(trigger: Trigger, listener: TcpListener) -> io::Result<Box<dyn Engine>> {
    InTokio::boxed(trigger, listener, |acceptor, context| {
        acceptor.poll_accept_std(context).map(|accepted| Ok(accepted?.expect("not stopped").into_parts().0))
    })
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

/// `AsyncAcceptor` on a current-thread runtime.
struct InTokio<S> {
    runtime: Runtime,
    acceptor: AsyncAcceptor<TcpListener>,
    poll: PollAccept<S>,
    taken: Vec<S>,
}

type PollAccept<S> = fn(&mut AsyncAcceptor<TcpListener>, &mut Context<'_>) -> Poll<io::Result<S>>;

impl<S: AsFd + 'static> InTokio<S> {
    fn boxed(trigger: Trigger, listener: TcpListener, poll: PollAccept<S>) -> io::Result<Box<dyn Engine>> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let acceptor = {
            let _inside = runtime.enter();
            trigger.on(listener).build_tokio()?
        };
        Ok(Box::new(Self { runtime, acceptor, poll, taken: Vec::with_capacity(LONGEST) }))
    }
}

impl<S: AsFd> Engine for InTokio<S> {
    fn take(&mut self, count: usize) {
        let Self { runtime, acceptor, poll, taken } = self;
        runtime.block_on(async {
            for _ in 0..count {
                taken.push(poll_fn(|context| poll(acceptor, context)).await.expect("a connection"));
            }
            // Only a look that finds nothing clears tokio's readiness.
            poll_fn(|context| {
                assert!(poll(acceptor, context).is_pending(), "the queue is empty");
                Poll::Ready(())
            })
            .await;
        });
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}
