//! The loops that one would write by hand: bare system calls, no more of them than the strategy needs.
#![allow(unsafe_code, reason = "what the wrappers are compared with")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::engine::{Engine, listen};
use crate::predict::Predict;

/// A listener on an epoll, and what to do at each wake-up.
struct Loop<F> {
    epoll: OwnedFd,
    listener: TcpListener,
    /// The mask to repeat at the beginning of each pass, where that is part of the strategy.
    again: Option<u32>,
    pass: F,
    events: [libc::epoll_event; 64],
    taken: Vec<OwnedFd>,
}

/// With the crate's own rule of whether to count or to take one.
pub(crate) fn level_guessing() -> io::Result<Box<dyn Engine>> {
    let mut predict = Predict::default();
    start(0, false, move |listener: &TcpListener, taken: &mut Vec<OwnedFd>| {
        if predict.counts() {
            let before = taken.len();
            depth(listener, taken);
            predict.learn(u32::try_from(taken.len() - before).expect("no more than a queue holds"));
        } else {
            one(listener, taken);
        }
    })
}

pub(crate) fn level(pass: fn(&TcpListener, &mut Vec<OwnedFd>)) -> io::Result<Box<dyn Engine>> {
    start(0, false, pass)
}

/// With or without one `EPOLL_CTL_MOD` at the beginning of each pass, after which nothing is owed however it ends.
pub(crate) fn edge(pass: fn(&TcpListener, &mut Vec<OwnedFd>), modifies: bool) -> io::Result<Box<dyn Engine>> {
    start(libc::EPOLLET, modifies, pass)
}

fn start<F>(trigger: i32, modifies: bool, pass: F) -> io::Result<Box<dyn Engine>>
where
    F: FnMut(&TcpListener, &mut Vec<OwnedFd>) + 'static,
{
    let listener = listen()?;
    let epoll = create()?;
    let mask = bits(libc::EPOLLIN | trigger);
    control(&epoll, libc::EPOLL_CTL_ADD, &listener, mask)?;
    let again = modifies.then_some(mask);
    let events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    Ok(Box::new(Loop { epoll, listener, again, pass, events, taken: Vec::with_capacity(4096) }))
}

impl<F: FnMut(&TcpListener, &mut Vec<OwnedFd>)> Engine for Loop<F> {
    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    fn take(&mut self, burst: usize) {
        while self.taken.len() < burst {
            wait(&self.epoll, &mut self.events);
            if let Some(mask) = self.again {
                control(&self.epoll, libc::EPOLL_CTL_MOD, &self.listener, mask).expect("a re-arm");
            }
            (self.pass)(&self.listener, &mut self.taken);
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn release(&mut self) {
        self.taken.clear();
    }
}

/// Until the queue says that it is empty, and with the peer's address: what nearly everyone writes.
pub(crate) fn until_eagain(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    while let Some(stream) = accept_with_peer(listener) {
        taken.push(stream);
    }
}

/// One connection a wake-up.
pub(crate) fn one(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    taken.extend(accept(listener));
}

/// As many as are queued, and not one more.
pub(crate) fn depth(listener: &TcpListener, taken: &mut Vec<OwnedFd>) {
    for _ in 0..queued(listener) {
        taken.extend(accept(listener));
    }
}

fn create() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1(2) takes no pointer.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    owned(fd).ok_or_else(io::Error::last_os_error)
}

pub(crate) fn control(epoll: &impl AsRawFd, op: i32, fd: &impl AsRawFd, mask: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: mask, u64: 1 };
    // SAFETY: epoll_ctl(2) reads one event, which lives until the call returns.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event; 64]) {
    // SAFETY: epoll_wait(2) writes at most 64 events, for which there is room.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 64, -1) };
    assert_eq!(count, 1, "the listener is the only one");
}

fn accept(listener: &TcpListener) -> Option<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: accept4(2) may be given null for an address that is not wanted.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) })
}

fn accept_with_peer(listener: &TcpListener) -> Option<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: of integers and arrays of them; all zeros are a valid one.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = socklen(size_of_val(&address));
    // SAFETY: accept4(2) writes at most `length` bytes of the address, which has that many, and the length.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut address).cast(), &raw mut length, flags) })
}

/// `tcpi_unacked` of a listener.
fn queued(listener: &TcpListener) -> u32 {
    const OFFSET: usize = std::mem::offset_of!(libc::tcp_info, tcpi_unacked);
    let mut info = [0_u8; OFFSET + size_of::<u32>()];
    let mut length = socklen(info.len());
    // SAFETY: getsockopt(2) writes at most `length` bytes, for which there is room.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "the kernel tells how many wait");
    u32::from_ne_bytes(info[OFFSET..].try_into().expect("four bytes"))
}

/// A descriptor that a system call has just returned, or none for -1.
fn owned(fd: i32) -> Option<OwnedFd> {
    // SAFETY: the kernel gave it to this call alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A mask, as the event structure wants it.
#[allow(clippy::cast_sign_loss, reason = "a bit mask")]
pub(crate) const fn bits(mask: i32) -> u32 {
    mask as u32
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).expect("some dozen bytes")
}
