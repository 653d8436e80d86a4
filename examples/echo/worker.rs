//! One thread: one epoll, one acceptor, many connections.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use epoll_acceptor::{Acceptor, Connection, Counters, Epoll, Events, Interest, Token};

use crate::connection::{CHUNK, Echo, Turn, WaitsFor};
use crate::slab::Slab;

/// The acceptor's token. The connections have theirs from the slab, which never gets so far.
pub(crate) const LISTENER: Token = Token(u64::MAX);

/// Serves until the acceptor is stopped; then says what it did.
///
/// The errors are those of the listener and of the epoll. No client can cause one.
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
                        connections.welcome(connection?);
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
    fn welcome(&mut self, connection: Connection<S, P>) {
        let key = self.slab.insert(Echo::new(connection));
        let echo = self.slab.get_mut(key).expect("just put there");
        if let Err(error) = self.epoll.add(&echo.connection, Token(key), Interest::IN) {
            // Out of watches or of memory: this client is out of luck, the others are not.
            eprintln!("echo: a connection could not be watched and was closed: {error}");
            self.slab.remove(key);
        }
    }

    fn serve(&mut self, key: u64) {
        // An event of a connection that was closed earlier in the same batch finds nobody.
        let Some(echo) = self.slab.get_mut(key) else { return };
        let alive = match echo.turn(&mut self.buffer) {
            Turn::Same => true,
            Turn::Changed(waits_for) => {
                let interest = match waits_for {
                    WaitsFor::Input => Interest::IN,
                    WaitsFor::Room => Interest::OUT,
                };
                self.epoll.modify(&echo.connection, Token(key), interest).is_ok()
            }
            Turn::Over => false,
        };
        if !alive {
            // Closes it, and then gives its place back.
            self.slab.remove(key);
        }
    }
}
