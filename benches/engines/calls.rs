//! The system calls of a loop by hand, with nothing around them that costs.
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

/// What everything is registered under: nobody has more than the one listener to tell apart.
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

/// How many events came.
pub fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event]) -> usize {
    let (room, most) = (events.as_mut_ptr(), events.len() as c_int);
    // SAFETY: epoll_wait(2) writes at most as many events as there is room for.
    checked(unsafe { libc::epoll_wait(epoll.as_raw_fd(), room, most, -1) }) as usize
}

/// What is known to be queued.
pub fn accept(listener: &TcpListener) -> OwnedFd {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: accept4(2) writes no address where none is asked for, and returns a new descriptor, which nobody
    // else owns.
    unsafe {
        let fd = libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags);
        OwnedFd::from_raw_fd(checked(fd))
    }
}

/// With the peer's address, if anybody is queued.
pub fn accept_with_peer(listener: &TcpListener) -> Option<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: of integers and arrays of them; all zeros are a valid one.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: accept4(2) writes at most `length` bytes of the address, which has that many, and the length.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut address).cast(), &raw mut length, flags) })
}

/// How many wait in the listener's queue: its `tcpi_unacked`.
pub fn queued(listener: &TcpListener) -> usize {
    const UNACKED: usize = 24;
    let mut info = [0_u8; UNACKED + 4];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `length` bytes, for which there is room.
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

/// A mask, as the event structure wants it.
pub const fn bits(mask: c_int) -> u32 {
    mask as u32
}

/// A descriptor that a system call has just returned, or none for -1.
fn owned(fd: c_int) -> Option<OwnedFd> {
    // SAFETY: the kernel gave it to this call alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(answer: c_int) -> c_int {
    assert!(answer != -1, "{}", io::Error::last_os_error());
    answer
}
