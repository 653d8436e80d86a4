//! HTTP on mio, with a limit: the acceptor is registered on mio's own epoll, under one of mio's tokens. SIGTERM ends the
//! service without a reset.
//!
//! ```text
//! cargo run --release -p servers --bin mio -- --listen 127.0.0.1:8080 --limit 10000
//! ```

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io;
use std::net::TcpStream as StdStream;
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Connection, Gate, Token as AcceptorToken};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use servers::exchange::{Exchange, Progress};
use servers::{listener, options};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

/// Tokens of connections count from 0, and are not reused.
const LISTENER: Token = Token(usize::MAX);

/// The connections, and mio's epoll.
struct Server {
    poll: Poll,
    events: Events,
    clients: HashMap<Token, Exchange<Connection<TcpStream>>>,
    next: usize,
    /// Those that have used up their share: mio, which registers edge-triggered, does not report them again.
    yielded: VecDeque<Token>,
    /// Connections are closed when they are idle.
    ends: bool,
}

impl Server {
    /// Waits, and serves what is ready. Returns whether the listener is.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = if self.yielded.is_empty() { timeout } else { Some(Duration::ZERO) };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            polled => polled?,
        }
        let mut ready: Vec<_> = self.events.iter().map(mio::event::Event::token).collect();
        ready.extend(self.yielded.drain(..));
        for token in ready.iter().filter(|token| **token != LISTENER) {
            self.serve(*token);
        }
        Ok(ready.contains(&LISTENER))
    }

    /// Serves a connection from now on. Without memory for its registration, only this connection is lost.
    fn add(&mut self, connection: Connection<StdStream>) {
        let mut exchange = Exchange::new(connection.map(TcpStream::from_std));
        let (token, interest) = (Token(self.next), Interest::READABLE | Interest::WRITABLE);
        let stream: &mut TcpStream = &mut exchange.connection;
        if self.poll.registry().register(stream, token, interest).is_ok() {
            self.clients.insert(token, exchange);
            self.next += 1;
        }
    }

    fn serve(&mut self, token: Token) {
        // `None`: closed earlier in the same turn.
        let Some(exchange) = self.clients.get_mut(&token) else { return };
        let progress = exchange.proceed();
        if progress == Progress::Closed || (self.ends && exchange.is_idle()) {
            // Closes the stream, which deregisters it, and then releases the permit.
            self.clients.remove(&token);
        } else if progress == Progress::Yielded {
            self.yielded.push_back(token);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::new(options.limit);
    let (listener, pending) = listener(&options)?;
    let poll = Poll::new()?;
    let token = AcceptorToken(LISTENER.0 as u64);
    let builder = options.trigger.on(listener).backlog(4_096).gate(&gate);
    let mut acceptor = builder.register(poll.registry(), token)?;
    let (control, mut signals) = (acceptor.control(), Signals::new([SIGTERM])?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    thread::spawn(move || {
        signals.forever().next();
        control.shutdown_gracefully(pending, options.within);
    });
    let (events, clients, yielded) = (Events::with_capacity(1024), HashMap::new(), VecDeque::new());
    let mut server = Server { poll, events, clients, next: 0, yielded, ends: false };
    while !acceptor.state().is_terminal() {
        if server.turn(None)? {
            for connection in acceptor.ready() {
                server.add(connection?);
            }
        }
    }
    println!("{}, {:?}", acceptor.counters(), acceptor.shutdown_report());
    drop(acceptor);
    // Requests in service, and first ones that are on their way, are answered.
    let end = Instant::now() + options.within;
    server.ends = true;
    server.clients.retain(|_, exchange| !exchange.is_idle());
    while !server.clients.is_empty() && Instant::now() < end {
        server.turn(Some(end - Instant::now()))?;
    }
    Ok(())
}
