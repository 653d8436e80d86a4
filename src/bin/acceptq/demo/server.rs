//! The two servers of the demonstration: the same service, and two accept loops.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use epoll_acceptor::{Acceptor, EdgeTriggered, Epoll, Events, Gate, Interest, Token};
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::say;

const LIMIT: usize = 1;
const LISTENER: u64 = 0;
const STDIN: u64 = 1;
const FIRST: u64 = 2;
/// A request that keeps the server busy until it gets a byte on its standard input.
pub(crate) const ERRAND: &[u8] = b"errand\n";
/// What it says when it has begun with that.
pub(crate) const BUSY: &str = "busy";

/// A server of the demonstration; it ends with its standard input
#[derive(Args, Debug)]
pub(crate) struct DemoServer {
    accept_loop: Loop,
}

/// Which accept loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Loop {
    Faulty,
    Acceptor,
}

impl DemoServer {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        say(&format!("{}\n", listener.local_addr()?.port()))?;
        match self.accept_loop {
            Loop::Faulty => faulty(&listener)?,
            Loop::Acceptor => acceptor(listener)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As it is found in the field.
fn faulty(listener: &TcpListener) -> io::Result<()> {
    let epoll = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LISTENER))?;
    let stdin = io::stdin();
    epoll.add(stdin.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, STDIN))?;
    let mut connections = HashMap::new();
    let mut next = FIRST;
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            match event.data() {
                STDIN => return Ok(()),
                LISTENER => {
                    while let Ok((connection, _)) = listener.accept() {
                        if connections.len() >= LIMIT {
                            drop(connection);
                            // THE FAULT: it leaves the loop, and the
                            // queue need not be empty. `continue` is the
                            // cure.
                            break;
                        }
                        connection.set_nonblocking(true)?;
                        epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, next))?;
                        connections.insert(next, connection);
                        next += 1;
                    }
                }
                token => serve(&mut connections, token)?,
            }
        }
    }
}

/// On this crate's acceptor, edge-triggered as well.
fn acceptor(listener: TcpListener) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let gate = Gate::new(u32::try_from(LIMIT).map_err(io::Error::other)?);
    let mut acceptor = EdgeTriggered::on(listener).gate(&gate).register(&epoll, Token(LISTENER))?;
    epoll.add(&io::stdin(), Token(STDIN), Interest::IN)?;
    let mut connections = HashMap::new();
    let mut next = FIRST;
    let mut events = Events::with_capacity(64)?;
    loop {
        epoll.wait(&mut events, None)?;
        for event in &mut events {
            match event.token().0 {
                STDIN => return Ok(()),
                LISTENER => {
                    for connection in acceptor.ready() {
                        let connection = connection?;
                        epoll.add(&connection, Token(next), Interest::IN)?;
                        connections.insert(next, connection);
                        next += 1;
                    }
                }
                token => serve(&mut connections, token)?,
            }
        }
    }
}

/// An echo service.
fn serve<S: Read + Write>(connections: &mut HashMap<u64, S>, token: u64) -> io::Result<()> {
    let Some(connection) = connections.get_mut(&token) else { return Ok(()) };
    let mut buffer = [0; 64];
    let is_over = match connection.read(&mut buffer) {
        Ok(0) => true,
        Ok(length) => {
            if &buffer[..length] == ERRAND {
                run_errand()?;
            }
            connection.write_all(&buffer[..length]).is_err()
        }
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    if is_over {
        connections.remove(&token);
    }
    Ok(())
}

/// Under a real flood a server is hardly ever waiting, so arrivals coalesce by themselves. One
/// demonstration's
/// crowd might be taken one by one: so the server has something to do while it arrives.
fn run_errand() -> io::Result<()> {
    say(&format!("{BUSY}\n"))?;
    io::stdin().read_exact(&mut [0])
}
