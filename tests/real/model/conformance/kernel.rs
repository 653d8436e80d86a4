//! The kernel as a system under test, through this crate's wrappers.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use epoll_acceptor::socket::{accept_queue, has_pending};
use epoll_acceptor::{Epoll, Events, Interest, Token};

use crate::conformance::cases::{System, Trigger};

/// The timeout of threads that get no event.
const NO_EVENT_TIMEOUT: Duration = Duration::from_millis(300);

pub(crate) struct Linux {
    listeners: Vec<TcpListener>,
    epolls: Vec<Epoll>,
    clients: Vec<TcpStream>,
}

impl System for Linux {
    fn new(listeners: usize, epolls: usize) -> Self {
        let listeners = (0..listeners).map(|_| listener()).collect();
        Self { listeners, epolls: (0..epolls).map(|_| Epoll::new().unwrap()).collect(), clients: Vec::new() }
    }

    fn watch(&mut self, epoll: usize, listener: usize, trigger: Trigger) {
        self.epolls[epoll].add(&self.listeners[listener], Token(0), interest(trigger)).unwrap();
    }

    fn nest(&mut self, outer: usize, inner: usize, trigger: Trigger) {
        self.epolls[outer].add(&self.epolls[inner], Token(0), interest(trigger)).unwrap();
    }

    fn rearm(&mut self, epoll: usize, listener: usize, trigger: Trigger) {
        self.epolls[epoll].modify(&self.listeners[listener], Token(0), interest(trigger)).unwrap();
    }

    fn connect(&mut self, listener: usize) {
        self.clients.push(connect(&self.listeners[listener]));
    }

    fn queued(&mut self, listener: usize) -> usize {
        accept_queue(&self.listeners[listener]).unwrap().depth as usize
    }

    fn wait(&mut self, epoll: usize, max: usize) -> usize {
        wait(&self.epolls[epoll], max, Some(Duration::ZERO))
    }

    fn is_readable(&mut self, epoll: usize) -> bool {
        has_pending(&self.epolls[epoll]).unwrap()
    }

    fn woken(&mut self, epoll: usize, threads: usize, max: usize, connect: &[usize]) -> usize {
        let epoll = &self.epolls[epoll];
        std::thread::scope(|scope| {
            let waits = (0..threads).map(|_| scope.spawn(|| wait(epoll, max, Some(NO_EVENT_TIMEOUT)) > 0));
            let waits: Vec<_> = waits.collect();
            let clients = connect.iter().map(|listener| self::connect(&self.listeners[*listener]));
            self.clients.extend(clients);
            waits.into_iter().map(|wait| wait.join().unwrap()).filter(|woken| *woken).count()
        })
    }
}

pub(crate) fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Connects a client that resets on close, which leaves no TIME_WAIT.
pub(crate) fn connect(listener: &TcpListener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    client
}

/// Waits, retrying after signals, and returns the number of events.
pub(crate) fn wait(epoll: &Epoll, max: usize, timeout: Option<Duration>) -> usize {
    let mut events = Events::with_capacity(max).unwrap();
    loop {
        let waited = epoll.wait(&mut events, timeout).unwrap();
        if !waited.interrupted() {
            return waited.count();
        }
    }
}

pub(crate) fn interest(trigger: Trigger) -> Interest {
    match trigger {
        Trigger::Level => Interest::IN,
        Trigger::Edge => Interest::IN | Interest::ET,
    }
}
