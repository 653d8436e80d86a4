//! The servers of the demo: one echo service with two accept loops.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use epoll_acceptor::{Acceptor, EdgeTriggered, Epoll, Events, Gate, Interest, Token};
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::print;

const LIMIT: usize = 1;
const LISTENER: u64 = 0;
const STDIN: u64 = 1;
const FIRST: u64 = 2;
/// A request that blocks the server until it reads a byte from stdin.
pub(crate) const SLOW_REQUEST: &[u8] = b"slow\n";
/// Printed by the server when it starts that request.
pub(crate) const BUSY: &str = "busy";

/// A server of the demo; exits at end of file on stdin
#[derive(Args, Debug)]
pub(crate) struct DemoServer {
    accept_loop: Loop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Loop {
    Faulty,
    Acceptor,
}

impl DemoServer {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        print(&format!("{}\n", listener.local_addr()?.port()))?;
        match self.accept_loop {
            Loop::Faulty => faulty(&listener)?,
            Loop::Acceptor => acceptor(listener)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Serves with a hand-written accept loop that strands connections.
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
                            // THE FAULT: leaves the loop before EAGAIN, so
                            // that connections stay queued without an event.
                            // `continue` is correct.
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

/// Serves with an acceptor of epoll-acceptor, also edge-triggered.
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

/// Echoes what a connection sends.
fn serve<S: Read + Write>(connections: &mut HashMap<u64, S>, token: u64) -> io::Result<()> {
    let Some(connection) = connections.get_mut(&token) else { return Ok(()) };
    let mut buffer = [0; 64];
    let is_over = match connection.read(&mut buffer) {
        Ok(0) => true,
        Ok(length) => {
            if &buffer[..length] == SLOW_REQUEST {
                run_slow_request()?;
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

/// Blocks until the parent writes a byte. Under load, arrivals coalesce into one wakeup because the server is
/// busy; the few clients of the demo need a busy server for that.
fn run_slow_request() -> io::Result<()> {
    print(&format!("{BUSY}\n"))?;
    io::stdin().read_exact(&mut [0])
}
