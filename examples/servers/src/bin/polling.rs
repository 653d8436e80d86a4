//! HTTP on polling, with a limit: the acceptor is registered on the poller's own epoll, under a key of its own. SIGTERM
//! ends the service without a reset.
//!
//! ```text
//! cargo run --release -p servers --bin polling -- --listen 127.0.0.1:8080 --limit 10000
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Connection, Gate, Token};
use polling::{Event, Events, Poller};
use servers::exchange::{Exchange, Progress};
use servers::{listener, options};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

/// Keys of connections count from 0, and are not reused. `usize::MAX` is the poller's.
const LISTENER: usize = usize::MAX - 1;

/// The connections, and the poller's epoll.
struct Server {
    poller: Poller,
    events: Events,
    clients: HashMap<usize, Exchange<Connection<TcpStream>>>,
    next: usize,
    /// Connections are closed when they are idle.
    ends: bool,
}

impl Server {
    /// Waits, and serves what is ready. Returns whether the listener is.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.events.clear();
        match self.poller.wait(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            waited => waited?,
        };
        let ready: Vec<_> = self.events.iter().map(|event| event.key).collect();
        for key in ready.iter().filter(|key| **key != LISTENER) {
            self.serve(*key);
        }
        Ok(ready.contains(&LISTENER))
    }

    /// Serves a connection from now on. Without memory for its registration, only this connection is lost.
    fn add(&mut self, connection: Connection<TcpStream>) {
        #[allow(unsafe_code, reason = "polling requires that the descriptor outlives its registration")]
        // SAFETY: `close` deletes it before the descriptor is closed.
        let added = unsafe { self.poller.add(&connection, Event::readable(self.next)) };
        if added.is_ok() {
            self.clients.insert(self.next, Exchange::new(connection));
            self.next += 1;
        }
    }

    fn serve(&mut self, key: usize) {
        let Some(exchange) = self.clients.get_mut(&key) else { return };
        let progress = exchange.proceed();
        // The poller disarms its sources after each event. It does not touch the acceptor's registrations.
        let event = if exchange.is_sending() { Event::writable(key) } else { Event::readable(key) };
        if progress == Progress::Closed
            || (self.ends && exchange.is_idle())
            || self.poller.modify(&exchange.connection, event).is_err()
        {
            self.close(key);
        }
    }

    /// Closes the stream, and then releases the permit.
    fn close(&mut self, key: usize) {
        let Some(exchange) = self.clients.remove(&key) else { return };
        // Cannot fail: it is registered.
        let _ = self.poller.delete(&exchange.connection);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::new(options.limit);
    let (listener, pending) = listener(&options)?;
    let poller = Poller::new()?;
    let builder = options.trigger.on(listener).backlog(4_096).gate(&gate);
    let mut acceptor = builder.register(&poller, Token(LISTENER as u64))?;
    let (control, mut signals) = (acceptor.control(), Signals::new([SIGTERM])?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    thread::spawn(move || {
        signals.forever().next();
        control.shutdown_gracefully(pending, options.within);
    });
    let mut server = Server { poller, events: Events::new(), clients: HashMap::new(), next: 0, ends: false };
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
    let idle: Vec<_> =
        server.clients.iter().filter(|(_, exchange)| exchange.is_idle()).map(|(key, _)| *key).collect();
    idle.into_iter().for_each(|key| server.close(key));
    while !server.clients.is_empty() && Instant::now() < end {
        server.turn(Some(end - Instant::now()))?;
    }
    Ok(())
}
