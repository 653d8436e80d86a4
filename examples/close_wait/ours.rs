//! The same server on this crate. The same code serves every strategy.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};

use epoll_acceptor::{
    Acceptor, EdgeTriggered, Epoll, Events, Exclusive, Gate, Interest, LevelTriggered, Refusal, Token,
    Trigger, WhenFull,
};

use crate::service::{LIMIT, Next, Service};

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const FIRST_CONNECTION: u64 = 2;

/// What the shed ones read instead of an answer.
const LAST_WORD: &str = "busy, come back later\n";

/// Leaves those who find the server full to the kernel's queue, until it is their turn.
pub(crate) fn pause() -> WhenFull {
    WhenFull::Pause
}

/// Sends those who find the server full away with a word.
pub(crate) fn shed() -> WhenFull {
    WhenFull::Shed(Refusal::message(LAST_WORD))
}

/// Serves until it is told to stop.
pub(crate) fn serve(
    listener: TcpListener,
    trigger: Trigger,
    when_full: WhenFull,
    service: &mut Service,
) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let gate = Gate::new(LIMIT).when_full(when_full);
    match trigger {
        Trigger::Edge => {
            run(&epoll, EdgeTriggered::on(listener).gate(&gate).register(&epoll, LISTENER)?, service)
        }
        Trigger::Level => {
            run(&epoll, LevelTriggered::on(listener).gate(&gate).register(&epoll, LISTENER)?, service)
        }
        Trigger::Exclusive => {
            run(&epoll, Exclusive::on(listener).gate(&gate).register(&epoll, LISTENER)?, service)
        }
    }
}

fn run<A>(epoll: &Epoll, mut acceptor: A, service: &mut Service) -> io::Result<()>
where
    A: Acceptor<Stream = TcpStream>,
{
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
