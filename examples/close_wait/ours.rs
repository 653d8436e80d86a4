//! The same server on this crate, with any trigger.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;

use epoll_acceptor::{Acceptor, Epoll, Events, Gate, Interest, Refusal, Token, Trigger, WhenFull};

use crate::service::{LIMIT, Next, Service};

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const FIRST_CONNECTION: u64 = 2;

/// What a refused client reads instead of a reply.
const BUSY: &str = "busy, try again later\n";

/// Leaves further connections in the kernel's accept queue while the server is full.
pub(crate) fn wait() -> WhenFull {
    WhenFull::Wait
}

/// Refuses further connections with a message while the server is full.
pub(crate) fn shed() -> WhenFull {
    WhenFull::Shed(Refusal::message(BUSY))
}

/// Serves until `service.stop` is readable.
pub(crate) fn serve(
    listener: TcpListener,
    trigger: Trigger,
    when_full: WhenFull,
    service: &mut Service,
) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let gate = Gate::builder(LIMIT).when_full(when_full).build();
    let mut acceptor = trigger.on(listener).gate(&gate).register(&epoll, LISTENER)?;
    epoll.add(&service.stop, STOP, Interest::IN)?;
    let mut connections = HashMap::new();
    let mut next_token = FIRST_CONNECTION;
    let mut events = Events::with_capacity(64)?;
    loop {
        epoll.wait(&mut events, None)?;
        for event in &mut events {
            match event.token() {
                STOP => return Ok(()),
                LISTENER => {
                    for connection in acceptor.ready() {
                        let connection = connection?;
                        epoll.add(&connection, Token(next_token), Interest::IN)?;
                        connections.insert(next_token, connection);
                        next_token += 1;
                    }
                }
                Token(token) => {
                    if let Some(connection) = connections.get_mut(&token) {
                        if service.answer(connection) == Next::Close {
                            connections.remove(&token);
                        }
                    }
                }
            }
        }
    }
}
