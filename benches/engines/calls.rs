//! The system calls of a hand-written loop, without overhead.
#![allow(unsafe_code, reason = "what the crate's wrappers are compared with")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "C's ints"
)]

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// The token of every registration: each epoll has one listener and nothing else.
pub const LISTENER: u64 = 0;

pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1(2) takes no pointer.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    owned(fd).ok_or_else(io::Error::last_os_error)
}

pub fn control(epoll: &impl AsRawFd, operation: c_int, fd: &impl AsRawFd, mask: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: mask, u64: LISTENER };
    // SAFETY: epoll_ctl(2) reads one event, which lives until the call returns.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits, and returns the number of events.
pub fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event]) -> usize {
    let (buffer, capacity) = (events.as_mut_ptr(), events.len() as c_int);
    // SAFETY: epoll_wait(2) writes at most `capacity` events, which is the length of the buffer.
    checked(unsafe { libc::epoll_wait(epoll.as_raw_fd(), buffer, capacity, -1) }) as usize
}

/// Accepts a connection that is known to be queued.
pub fn accept(listener: &TcpListener) -> OwnedFd {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: accept4(2) writes no address if both pointers are null, and returns a new descriptor, which nothing else
    // owns.
    unsafe {
        let fd = libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags);
        OwnedFd::from_raw_fd(checked(fd))
    }
}

/// Accepts a connection with its peer's address, if one is queued.
pub fn accept_with_peer(listener: &TcpListener) -> Option<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: it consists of integers and arrays of them; all zeros are valid.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: accept4(2) writes at most `length` bytes of the address, which has that many, and the length.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut address).cast(), &raw mut length, flags) })
}

/// Returns the length of the accept queue: `tcpi_unacked`.
pub fn queued(listener: &TcpListener) -> usize {
    const UNACKED: usize = 24;
    let mut info = [0_u8; UNACKED + 4];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `length` bytes, which is the length of the buffer.
    checked(unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    });
    u32::from_ne_bytes([info[UNACKED], info[UNACKED + 1], info[UNACKED + 2], info[UNACKED + 3]]) as usize
}

/// Converts a mask to the type of the event structure.
pub const fn bits(mask: c_int) -> u32 {
    mask as u32
}

/// Takes ownership of a descriptor that a system call has just returned; `None` for -1.
fn owned(fd: c_int) -> Option<OwnedFd> {
    // SAFETY: the call has just made this descriptor, and nothing else owns it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: c_int) -> c_int {
    assert!(result != -1, "{}", io::Error::last_os_error());
    result
}
