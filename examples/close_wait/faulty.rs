//! The faulty accept loop, in raw system calls: the core of a typical epoll server with one wrong word.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::service::{LIMIT, Next, Service};

/// Level-triggered: every wait reports the listener while its queue is not empty.
pub(crate) const LEVEL: u32 = 0;
/// Edge-triggered: a wait reports the listener once, and again only after the next arrival.
#[expect(clippy::cast_sign_loss, reason = "a bit mask that libc writes as a signed number")]
pub(crate) const EDGE: u32 = libc::EPOLLET as u32;

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const FIRST_CONNECTION: u64 = 2;

/// Serves until `service.stop` is readable.
pub(crate) fn serve(listener: &TcpListener, trigger: u32, service: &mut Service) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        epoll: epoll_create()?,
        listener: listener.as_raw_fd(),
        connections: HashMap::new(),
        next_token: FIRST_CONNECTION,
    };
    server.watch(server.listener, LISTENER, trigger)?;
    server.watch(service.stop.as_raw_fd(), STOP, LEVEL)?;
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        for event in server.wait(&mut events)? {
            match event.u64 {
                STOP => return Ok(()),
                LISTENER => server.accept_all()?,
                token => server.serve_one(token, service),
            }
        }
    }
}

struct Server {
    epoll: OwnedFd,
    listener: RawFd,
    connections: HashMap<u64, TcpStream>,
    next_token: u64,
}

impl Server {
    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: accept4(2) takes null for both pointers when no address is wanted.
            let fd = unsafe { libc::accept4(self.listener, ptr::null_mut(), ptr::null_mut(), flags) };
            if fd < 0 {
                return Ok(()); // EAGAIN: the queue is empty, and the next arrival raises a new edge.
            }
            if self.connections.len() >= LIMIT as usize {
                // SAFETY: accept4 has just made this descriptor, and nothing else owns it.
                unsafe { libc::close(fd) };
                // THE FAULT: the connections that are still queued raise no further edge. Write `continue`.
                return Ok(());
            }
            // SAFETY: as above; from here on the stream owns it.
            self.add(unsafe { TcpStream::from_raw_fd(fd) })?;
        }
    }

    fn add(&mut self, stream: TcpStream) -> io::Result<()> {
        self.watch(stream.as_raw_fd(), self.next_token, LEVEL)?;
        self.connections.insert(self.next_token, stream);
        self.next_token += 1;
        Ok(())
    }

    fn serve_one(&mut self, token: u64, service: &mut Service) {
        if let Some(stream) = self.connections.get(&token) {
            if service.answer(stream) == Next::Close {
                self.connections.remove(&token);
            }
        }
    }

    fn watch(&self, fd: RawFd, token: u64, trigger: u32) -> io::Result<()> {
        let readable = u32::try_from(libc::EPOLLIN).expect("a small bit");
        let mut event = libc::epoll_event { events: readable | trigger, u64: token };
        // SAFETY: epoll_ctl(2) reads one event, which lives on this stack until after the call.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait<'a>(&self, events: &'a mut [libc::epoll_event; 64]) -> io::Result<&'a [libc::epoll_event]> {
        // SAFETY: epoll_wait(2) writes at most 64 events, and the array has room for 64.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 64, -1) };
        match usize::try_from(count) {
            Ok(count) => Ok(&events[..count]),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1(2) takes no pointer.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
