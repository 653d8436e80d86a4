//! An echo server on mio: the acceptor is registered on mio's own epoll, under one of mio's tokens.
//!
//! ```text
//! cargo run --release --example hosted_mio -- --listen 127.0.0.1:8080 --limit 100
//! ```
//!
//! mio's `Registry` is `AsFd`, so the acceptor needs no epoll of its own and has its own trigger in mio's epoll, whatever
//! mio does with its own sources. mio registers the connections, edge-triggered.

#[path = "../echo/address.rs"]
mod address;
mod echo;
#[path = "../common/options.rs"]
mod options;
#[path = "../common/signals.rs"]
mod signals;
#[path = "../echo/slab.rs"]
mod slab;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Acceptor, Connection, EpollAcceptor};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::address::{Address, listen_tcp, listen_unix};
use crate::echo::{Echo, Progress};
use crate::options::{HELP, Options};
use crate::slab::Slab;

/// The slab, whose keys are the connections' tokens, never reaches these two.
const LISTENER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::from_command_line()? else {
        print!("Usage: hosted_mio --listen ADDR [OPTIONS]\n\n{HELP}");
        return Ok(());
    };
    match options.listen.clone() {
        Address::Tcp(address) => {
            let listener = listen_tcp(address)?;
            let bound = Address::Tcp(listener.local_addr()?);
            serve(listener, &bound, &options)
        }
        Address::Unix(path) => {
            let (listener, _file) = listen_unix(path)?;
            serve(listener, &options.listen, &options)
        }
    }
}

/// Serves until a signal arrives, and then prints the counters.
fn serve<L>(listener: L, bound: &Address, options: &Options) -> Result<(), Box<dyn Error>>
where
    L: Listener,
    L::Stream: Read + Write,
{
    let signals = signals::block()?;
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&signals.as_fd().as_raw_fd()), SIGNALS, Interest::READABLE)?;
    let builder = options.trigger.on(listener).budget(options.budget).gate(&options.gate);
    let acceptor = builder
        .register(poll.registry(), epoll_acceptor::Token(LISTENER.0 as u64))
        .map_err(io::Error::from)?;
    let control = acceptor.control();
    println!("listening on {bound}");
    let mut server = Server { poll, acceptor, slab: Slab::new(), yielded: VecDeque::new() };
    server.run()?;
    println!("hosted_mio: {}", control.counters());
    Ok(())
}

struct Server<L: Listener> {
    poll: Poll,
    acceptor: EpollAcceptor<L>,
    slab: Slab<Echo<Connection<L::Stream>>>,
    /// Connections that have used up their share of the round: mio does not report them again.
    yielded: VecDeque<u64>,
}

impl<L> Server<L>
where
    L: Listener,
    L::Stream: Read + Write,
{
    fn run(&mut self) -> io::Result<()> {
        let mut events = mio::Events::with_capacity(1024);
        loop {
            let timeout = (!self.yielded.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for _ in 0..self.yielded.len() {
                let key = self.yielded.pop_front().expect("counted");
                self.serve(key);
            }
            for event in &events {
                match event.token() {
                    SIGNALS => return Ok(()),
                    LISTENER => self.accept()?,
                    Token(key) => self.serve(key as u64),
                }
            }
        }
    }

    /// Begins one pass for one event. The next poll reports what the pass leaves in the queue.
    fn accept(&mut self) -> io::Result<()> {
        for connection in self.acceptor.ready() {
            let key = self.slab.insert(Echo::new(connection?));
            let echo = self.slab.get_mut(key).expect("just inserted");
            let fd = echo.connection.as_fd().as_raw_fd();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(usize::try_from(key).expect("64 bits"));
            if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token, interest) {
                // Out of memory or of `max_user_watches`: only this connection is lost.
                eprintln!("hosted_mio: closed a connection that could not be registered: {error}");
                self.slab.remove(key);
            }
        }
        Ok(())
    }

    fn serve(&mut self, key: u64) {
        // `None`: the connection was closed earlier in the same batch of events.
        let Some(echo) = self.slab.get_mut(key) else { return };
        match echo.proceed() {
            Progress::Blocked => {}
            Progress::Yielded => self.yielded.push_back(key),
            Progress::Closed => {
                let fd = echo.connection.as_fd().as_raw_fd();
                // On an error, the close below deregisters it.
                let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
                self.slab.remove(key);
            }
        }
    }
}
