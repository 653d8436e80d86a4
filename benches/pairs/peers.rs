//! Other libraries, each used as its documentation shows.

use std::future::poll_fn;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use crate::engines::Engine;
use crate::plans::LONGEST;

/// A blocking accept per connection: no epoll, so the thread can wait for nothing else.
pub(crate) struct Std {
    listener: TcpListener,
    taken: Vec<TcpStream>,
}

/// Edge-triggered, accept until `WouldBlock`.
pub(crate) struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    listener: mio::net::TcpListener,
    taken: Vec<mio::net::TcpStream>,
}

/// One-shot. As documented: accept one, then re-arm; or accept until `WouldBlock` before that.
pub(crate) struct Polling {
    poller: polling::Poller,
    events: polling::Events,
    listener: TcpListener,
    drains: bool,
    taken: Vec<TcpStream>,
}

/// `listener.accept().await` on a current-thread runtime. Each stream is registered with the runtime's epoll,
/// which is part of its accept.
pub(crate) struct Tokio {
    runtime: Runtime,
    listener: tokio::net::TcpListener,
    taken: Vec<tokio::net::TcpStream>,
}

/// The same runtime, but the standard library's streams, which are not registered with it.
pub(crate) struct TokioFd {
    runtime: Runtime,
    listener: AsyncFd<TcpListener>,
    taken: Vec<TcpStream>,
}

impl Std {
    pub(crate) fn boxed(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        listener.set_nonblocking(false)?;
        Ok(Box::new(Self { listener, taken: buffer() }))
    }
}

impl Engine for Std {
    fn take(&mut self, count: usize) {
        for _ in 0..count {
            self.taken.push(self.listener.accept().expect("a connection").0);
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}

impl Mio {
    pub(crate) fn boxed(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        let poll = mio::Poll::new()?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry().register(&mut listener, mio::Token(1), mio::Interest::READABLE)?;
        Ok(Box::new(Self { poll, events: mio::Events::with_capacity(64), listener, taken: buffer() }))
    }
}

impl Engine for Mio {
    fn take(&mut self, count: usize) {
        while self.taken.len() < count {
            self.poll.poll(&mut self.events, None).expect("a wait");
            for event in &self.events {
                assert_eq!(event.token(), mio::Token(1), "only the listener is registered");
                while let Some((stream, _)) = taken_or_empty(self.listener.accept()) {
                    self.taken.push(stream);
                }
            }
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}

impl Polling {
    const KEY: usize = 1;

    pub(crate) fn boxed(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        Self::start(listener, false)
    }

    pub(crate) fn draining(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        Self::start(listener, true)
    }

    #[allow(unsafe_code, reason = "the library requires that the listener outlives its registration")]
    fn start(listener: TcpListener, drains: bool) -> io::Result<Box<dyn Engine>> {
        let poller = polling::Poller::new()?;
        // SAFETY: the destructor deletes it from the poller while it is open.
        unsafe { poller.add(&listener, polling::Event::readable(Self::KEY))? };
        Ok(Box::new(Self { poller, events: polling::Events::new(), listener, drains, taken: buffer() }))
    }
}

impl Engine for Polling {
    fn take(&mut self, count: usize) {
        while self.taken.len() < count {
            self.events.clear();
            self.poller.wait(&mut self.events, None).expect("a wait");
            for event in self.events.iter() {
                assert_eq!(event.key, Self::KEY, "only the listener is registered");
                while let Some((stream, _)) = taken_or_empty(self.listener.accept()) {
                    self.taken.push(stream);
                    if !self.drains {
                        break;
                    }
                }
                self.poller.modify(&self.listener, polling::Event::readable(Self::KEY)).expect("a re-arm");
            }
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.poller.delete(&self.listener).expect("registered until now");
    }
}

impl Tokio {
    pub(crate) fn boxed(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        Ok(Box::new(Self { runtime, listener, taken: buffer() }))
    }
}

impl Engine for Tokio {
    fn take(&mut self, count: usize) {
        self.runtime.block_on(async {
            for _ in 0..count {
                self.taken.push(self.listener.accept().await.expect("a connection").0);
            }
            // tokio still considers the listener ready: only an accept that would block clears that.
            poll_fn(|context| {
                assert!(self.listener.poll_accept(context).is_pending(), "the queue is empty");
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

impl TokioFd {
    #[allow(unsafe_code, reason = "the library requires that the listener outlives its registration")]
    pub(crate) fn boxed(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let listener = {
            let _inside = runtime.enter();
            // SAFETY: a listener's descriptor stays the same, and open, until it is dropped; it is not taken out before.
            unsafe { AsyncFd::register_with_interest(listener, tokio::io::Interest::READABLE) }?
        };
        Ok(Box::new(Self { runtime, listener, taken: buffer() }))
    }
}

impl Engine for TokioFd {
    fn take(&mut self, count: usize) {
        self.runtime.block_on(async {
            while self.taken.len() < count {
                let mut ready = self.listener.readable().await.expect("a wait");
                while let Ok(accepted) = ready.try_io(|listener| listener.get_ref().accept()) {
                    self.taken.push(accepted.expect("a connection").0);
                }
            }
        });
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}

fn buffer<T>() -> Vec<T> {
    Vec::with_capacity(LONGEST)
}

fn taken_or_empty<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("no connection: {error}"),
    }
}
