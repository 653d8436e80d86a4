//! One thread: one epoll, one acceptor, many connections.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use epoll_acceptor::{Acceptor, Connection, Counters, Epoll, Events, Interest, Token};

use crate::connection::{CHUNK, Echo, Progress, WaitsFor};
use crate::slab::Slab;

/// The acceptor's token. The slab, whose keys are the connections' tokens, never reaches it.
pub(crate) const LISTENER: Token = Token(u64::MAX);

/// Serves until the acceptor is stopped. Returns its counters.
///
/// No client can cause an error: errors are those of the listener and of the epoll.
pub(crate) fn run<A>(epoll: Epoll, mut acceptor: A) -> io::Result<Counters>
where
    A: Acceptor,
    A::Stream: Read + Write + AsFd,
{
    let mut events = Events::with_capacity(1024)?;
    let mut connections = Connections { epoll, slab: Slab::new(), buffer: [0; CHUNK] };
    while !acceptor.state().is_terminal() {
        connections.epoll.wait(&mut events, None)?;
        for event in &mut events {
            match event.token() {
                LISTENER => {
                    for connection in acceptor.ready() {
                        connections.add(connection?);
                    }
                }
                Token(key) => connections.serve(key),
            }
        }
    }
    Ok(acceptor.counters())
}

/// The connections of one worker.
struct Connections<S, P> {
    epoll: Epoll,
    slab: Slab<Echo<Connection<S, P>>>,
    buffer: [u8; CHUNK],
}

impl<S: Read + Write + AsFd, P> Connections<S, P> {
    fn add(&mut self, connection: Connection<S, P>) {
        let key = self.slab.insert(Echo::new(connection));
        let echo = self.slab.get_mut(key).expect("just inserted");
        if let Err(error) = self.epoll.add(&echo.connection, Token(key), Interest::IN) {
            // Out of memory or of `max_user_watches`: only this connection is lost.
            eprintln!("echo: closed a connection that could not be registered: {error}");
            self.slab.remove(key);
        }
    }

    fn serve(&mut self, key: u64) {
        // `None`: the connection was closed earlier in the same batch of events.
        let Some(echo) = self.slab.get_mut(key) else { return };
        let alive = match echo.proceed(&mut self.buffer) {
            Progress::Same => true,
            Progress::Changed(waits_for) => {
                let interest = match waits_for {
                    WaitsFor::Readable => Interest::IN,
                    WaitsFor::Writable => Interest::OUT,
                };
                self.epoll.modify(&echo.connection, Token(key), interest).is_ok()
            }
            Progress::Closed => false,
        };
        if !alive {
            // Closes the stream, then releases the permit.
            self.slab.remove(key);
        }
    }
}
