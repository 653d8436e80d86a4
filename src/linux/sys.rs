//! The system calls, one function each: the only unsafe blocks of the crate.
//!
//! A function makes its call and returns the kernel's result: no retry, no policy. Where nix has a safe function
//! over a borrowed descriptor, the call goes through nix; the others go through `libc`, with a proof.
//!
//! All proofs rely on one fact without repeating it: a `BorrowedFd` is open while it is borrowed, so no call here
//! can act on a number that was closed and reused.
#![allow(unsafe_code)]

pub(crate) mod listen;
pub(crate) mod options;
#[cfg(feature = "handover")]
pub(crate) mod rights;
#[cfg(feature = "signals")]
pub(crate) mod sigset;

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::sockopt;

use crate::drain::errno::Errno;

pub(crate) fn epoll_create1() -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes no pointer; epoll_create(2): "On success, these system calls return a file
    // descriptor", a new one, which has no other owner.
    unsafe { ret_owned_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }
}

pub(crate) fn epoll_ctl_add(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    mask: u32,
    data: u64,
) -> Result<(), Errno> {
    epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, mask, data)
}

#[inline]
pub(crate) fn epoll_ctl_mod(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    mask: u32,
    data: u64,
) -> Result<(), Errno> {
    epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, mask, data)
}

pub(crate) fn epoll_ctl_del(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, 0, 0)
}

#[inline]
fn epoll_ctl(
    epoll: BorrowedFd<'_>,
    operation: c_int,
    fd: BorrowedFd<'_>,
    mask: u32,
    data: u64,
) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: mask, u64: data };
    // SAFETY: `event` is a live `struct epoll_event`; epoll_ctl(2) reads it during the call and keeps a copy
    // ("The event argument describes the object linked to the file descriptor"), never the pointer.
    ret(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })
}

/// `epoll_wait`: returns the number of events written to the start of `buffer`. A negative timeout never expires.
#[inline]
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout_ms: c_int,
) -> Result<usize, Errno> {
    // SAFETY: epoll_wait(2): "Up to maxevents are returned", written from `events` on; `events_max` is at most
    // the length of `buffer`, which is writable for the whole call.
    ret_usize(unsafe {
        libc::epoll_wait(epoll.as_raw_fd(), buffer.as_mut_ptr(), events_max(buffer), timeout_ms)
    })
}

/// `epoll_pwait`: waits as [`epoll_wait`] does, with `mask` as the thread's signal mask.
pub(crate) fn epoll_pwait(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout_ms: c_int,
    mask: &libc::sigset_t,
) -> Result<usize, Errno> {
    // SAFETY: as for `epoll_wait`; `mask` is an initialised signal set that is only read.
    ret_usize(unsafe {
        libc::epoll_pwait(
            epoll.as_raw_fd(),
            buffer.as_mut_ptr(),
            events_max(buffer),
            timeout_ms,
            ptr::from_ref(mask),
        )
    })
}

/// The kernel's `struct __kernel_timespec`, which is 64 bits wide on every architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct KernelTimespec {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// The size of the kernel's `sigset_t` in bytes, one bit per signal (`_NSIG / 8`): MIPS has 128 signals, every other
/// architecture 64.
const KERNEL_SIGSET_SIZE: usize = if cfg!(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6"
)) {
    16
} else {
    8
};

/// `epoll_pwait2`: waits as [`epoll_wait`] does, with a timeout in nanoseconds. Calls by number, because not every libc
/// has the function.
pub(crate) fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout: KernelTimespec,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let mask = mask.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: epoll_wait(2): "epoll_pwait2(int epfd, struct epoll_event events[.maxevents], int maxevents,
    // const struct timespec *_Nullable timeout, const sigset_t *_Nullable sigmask)", and the kernel's last
    // argument is the size of its own set (sigprocmask(2), "C library/kernel differences"). The buffer is
    // as for `epoll_wait`; timeout and mask are only read, and a libc's `sigset_t` is at least as large
    // as the kernel's and begins with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            buffer.as_mut_ptr(),
            events_max(buffer),
            &raw const timeout,
            mask,
            KERNEL_SIGSET_SIZE,
        )
    };
    ret_usize(result)
}

/// Returns the length of `buffer`, capped at the kernel's limit of `INT_MAX` bytes of events (EINVAL).
#[inline]
fn events_max(buffer: &[libc::epoll_event]) -> c_int {
    c_int::try_from(buffer.len().min(EVENTS_MAX)).unwrap_or(c_int::MAX)
}

pub(crate) const EVENTS_MAX: usize = c_int::MAX as usize / size_of::<libc::epoll_event>();

/// `accept4` without an address: cannot fail after the kernel has removed the connection from the queue.
///
/// `flags` of accept(2): `SOCK_NONBLOCK`, `SOCK_CLOEXEC`.
#[inline]
pub(crate) fn accept4(fd: BorrowedFd<'_>, flags: c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: accept(2): "When addr is NULL, nothing is filled in; in this case, addrlen is not used, and
    // should also be NULL." On success it returns "a file descriptor for the accepted socket", a new one.
    unsafe { ret_owned_fd(libc::accept4(fd.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags)) }
}

#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; ADDRESS_SIZE],
    length: usize,
}

const ADDRESS_SIZE: usize = size_of::<libc::sockaddr_storage>();

impl RawAddress {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; ADDRESS_SIZE], length: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// `accept4`, which writes the peer's address to `address`.
///
/// If the kernel cannot write it, it closes the connection, which has left the queue: hence a whole `sockaddr_storage`,
/// with its true length.
#[inline]
pub(crate) fn accept4_with_peer(
    fd: BorrowedFd<'_>,
    flags: c_int,
    address: &mut RawAddress,
) -> Result<OwnedFd, Errno> {
    #[allow(clippy::cast_possible_truncation, reason = "a sockaddr_storage has 128 bytes")]
    let mut length = ADDRESS_SIZE as libc::socklen_t;
    // SAFETY: accept(2): "the caller must initialize [addrlen] to contain the size (in bytes) of the
    // structure pointed to by addr", and "The returned address is truncated if the buffer provided is too
    // small". `length` is the size of `bytes`; both are writable for the whole call. The returned descriptor
    // is a new one.
    let socket = unsafe {
        ret_owned_fd(libc::accept4(
            fd.as_raw_fd(),
            address.bytes.as_mut_ptr().cast::<libc::sockaddr>(),
            &raw mut length,
            flags,
        ))
    }?;
    // "in this case, addrlen will return a value greater than was supplied to the call"
    address.length = usize::try_from(length).unwrap_or(ADDRESS_SIZE).min(ADDRESS_SIZE);
    Ok(socket)
}

/// `poll` with timeout 0: returns the `revents` of one descriptor.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: i16) -> Result<i16, Errno> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: poll(2) takes "a set of file descriptors to be monitored ... an array of structures"; this array
    // has one entry, of which the kernel writes only `revents`.
    ret(unsafe { libc::poll(&raw mut entry, 1, 0) })?;
    Ok(entry.revents)
}

/// The fields of `struct tcp_info` (tcp(7), TCP_INFO) that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    /// A `TCP_*` state; [`TCP_LISTEN`] for a listening socket.
    pub(crate) state: u8,
    /// Milliseconds since the last send, or since the connection was established.
    pub(crate) last_data_sent_ms: u32,
    /// Of a listener: the length of the accept queue.
    pub(crate) unacked: u32,
    /// Of a listener: the effective backlog.
    pub(crate) sacked: u32,
    /// Linux fills it in for every socket that has been connected.
    snd_mss: u32,
    /// Linux fills it in for every socket.
    snd_cwnd: u32,
}

impl TcpInfo {
    /// Returns whether the kernel reports the accept queue of a listener. gVisor fills in neither depth nor backlog,
    /// and their zeros look like an empty queue.
    pub(crate) const fn reports_queue(&self) -> bool {
        self.state == TCP_LISTEN && self.snd_cwnd > 0
    }

    /// Returns whether the kernel reports the times of a connection. gVisor fills in none of them.
    pub(crate) const fn reports_times(&self) -> bool {
        self.state != TCP_LISTEN && self.snd_mss > 0
    }
}

/// `TCP_LISTEN` of the kernel's `tcp_states.h`.
pub(crate) const TCP_LISTEN: u8 = 10;

/// `getsockopt(TCP_INFO)`: reads the structure up to the last field of [`TcpInfo`].
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> Result<TcpInfo, Errno> {
    const STATE: usize = 0;
    const SND_MSS: usize = 16;
    const UNACKED: usize = 24;
    const SACKED: usize = 28;
    const LAST_DATA_SENT: usize = 44;
    const SND_CWND: usize = 80;
    const SIZE: usize = SND_CWND + 4;

    let mut bytes = [0_u8; SIZE];
    getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    let field = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok(TcpInfo {
        state: bytes[STATE],
        last_data_sent_ms: field(LAST_DATA_SENT),
        unacked: field(UNACKED),
        sacked: field(SACKED),
        snd_mss: field(SND_MSS),
        snd_cwnd: field(SND_CWND),
    })
}

/// `getsockopt`: fills all of `bytes`. A shorter value is EOPNOTSUPP, as if the socket lacked the option.
fn getsockopt(fd: BorrowedFd<'_>, level: c_int, option: c_int, bytes: &mut [u8]) -> Result<(), Errno> {
    let size = libc::socklen_t::try_from(bytes.len()).unwrap_or(libc::socklen_t::MAX);
    let mut length = size;
    // SAFETY: getsockopt(2): "optlen is a value-result argument, initially containing the size of the buffer
    // pointed to by optval, and modified on return to indicate the actual size of the value returned".
    // `length` is at most the length of `bytes`, and the kernel writes at most `length` bytes.
    ret(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, bytes.as_mut_ptr().cast::<c_void>(), &raw mut length)
    })?;
    if length < size { Err(Errno::new(libc::EOPNOTSUPP)) } else { Ok(()) }
}

/// `getsockopt(SO_PEERCRED)`: the credentials of the process that called connect(2) on a Unix socket. On other sockets
/// the call succeeds with pid 0 and the uid and gid -1.
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> Result<nix::sys::socket::UnixCredentials, Errno> {
    nix::sys::socket::getsockopt(&fd, sockopt::PeerCredentials).map_err(errno)
}

/// `getsockopt(SO_PEERGROUPS)`: writes the connecting process's supplementary groups to `groups` and returns their
/// number. ERANGE if they do not fit.
pub(crate) fn peer_groups(fd: BorrowedFd<'_>, groups: &mut [libc::gid_t]) -> Result<usize, Errno> {
    let mut length = libc::socklen_t::try_from(size_of_val(groups)).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: getsockopt(2): "optlen is a value-result argument, initially containing the size of the buffer
    // pointed to by optval"; `length` is at most the size of `groups`, and every bit pattern is a valid gid.
    ret(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    })?;
    Ok(usize::try_from(length).unwrap_or(0) / size_of::<libc::gid_t>())
}

pub(crate) fn peer_name(fd: BorrowedFd<'_>) -> Result<RawAddress, Errno> {
    #[allow(clippy::cast_possible_truncation, reason = "a sockaddr_storage has 128 bytes")]
    let mut length = ADDRESS_SIZE as libc::socklen_t;
    let mut address = RawAddress::new();
    // SAFETY: getpeername(2): "The addrlen argument should be initialized to indicate the amount of space
    // pointed to by addr"; `length` is the size of `bytes`, and both are writable for the whole call.
    ret(unsafe {
        libc::getpeername(
            fd.as_raw_fd(),
            address.bytes.as_mut_ptr().cast::<libc::sockaddr>(),
            &raw mut length,
        )
    })?;
    address.length = usize::try_from(length).unwrap_or(ADDRESS_SIZE).min(ADDRESS_SIZE);
    Ok(address)
}

/// `getsockopt(SO_ACCEPTCONN)`: returns `true` for a listening socket, `false` for any other descriptor.
pub(crate) fn is_listening(fd: BorrowedFd<'_>) -> bool {
    nix::sys::socket::getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)
}

/// `fcntl(F_SETFL)`: adds `O_NONBLOCK`, a flag of the open file description, which all duplicates share.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(fd, FcntlArg::F_GETFL).map_err(errno)?);
    if flags.contains(OFlag::O_NONBLOCK) {
        return Ok(());
    }
    nix::fcntl::fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(errno)?;
    Ok(())
}

/// `setsockopt(SO_LINGER)` in seconds: 0 makes close(2) reset the connection; `None` is the default, an orderly close.
pub(crate) fn set_linger(fd: BorrowedFd<'_>, seconds: Option<u16>) -> Result<(), Errno> {
    let value =
        libc::linger { l_onoff: c_int::from(seconds.is_some()), l_linger: c_int::from(seconds.unwrap_or(0)) };
    nix::sys::socket::setsockopt(&fd, sockopt::Linger, &value).map_err(errno)
}

pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    ret(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) })
}

/// `recv(MSG_DONTWAIT)`: returns the number of bytes received; 0 is the end of the stream. Never blocks.
pub(crate) fn recv_discard(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: recv(2) writes at most `len` bytes from `buf` on; both are those of a live slice.
    let result = unsafe {
        libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast::<c_void>(), buffer.len(), libc::MSG_DONTWAIT)
    };
    ret_usize(result)
}

/// `send(MSG_DONTWAIT | MSG_NOSIGNAL)`: returns the number of bytes sent. Never blocks, never raises SIGPIPE.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: send(2) reads at most `len` bytes from `buf` on; both are those of a live slice.
    let result = unsafe {
        libc::send(
            fd.as_raw_fd(),
            bytes.as_ptr().cast::<c_void>(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    ret_usize(result)
}

/// `eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)`
pub(crate) fn eventfd() -> Result<OwnedFd, Errno> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    EventFd::from_value_and_flags(0, flags).map(OwnedFd::from).map_err(errno)
}

/// `write(eventfd, 1)`: makes the eventfd readable and triggers an edge in each of its registrations.
pub(crate) fn eventfd_write(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    nix::unistd::write(fd, &1_u64.to_ne_bytes()).map(drop).map_err(errno)
}

/// `timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)`
pub(crate) fn timerfd() -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes no pointer; timerfd_create(2): "On success, timerfd_create() returns a new file
    // descriptor".
    unsafe {
        ret_owned_fd(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC))
    }
}

/// `timerfd_settime`: arms the timer to expire once, after `after`; zero expires at once; `None` disarms it.
pub(crate) fn timerfd_set(fd: BorrowedFd<'_>, after: Option<Duration>) -> Result<(), Errno> {
    const ONE_SHOT: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = match after {
        None => ONE_SHOT,
        // The kernel disarms the timer at zero.
        Some(after) => timespec(after.max(Duration::from_nanos(1))),
    };
    let setting = libc::itimerspec { it_interval: ONE_SHOT, it_value: value };
    // SAFETY: timerfd_settime(2): "The new_value argument specifies the initial expiration and interval", and
    // is only read; a NULL `old_value` returns nothing.
    ret(unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const setting, ptr::null_mut()) })
}

/// Converts a duration and saturates at the maximum of `time_t`.
#[allow(clippy::cast_possible_wrap, reason = "nanoseconds below a second fit any c_long")]
#[cfg_attr(target_env = "musl", allow(deprecated, reason = "libc will make time_t 64 bits wide"))]
fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos() as c_long,
    }
}

/// Takes ownership of the descriptor that a system call returned.
///
/// # Safety
///
/// `result` is -1 with `errno` set, or a new open descriptor without another owner.
#[inline]
unsafe fn ret_owned_fd(result: c_int) -> Result<OwnedFd, Errno> {
    if result == -1 {
        return Err(last_errno());
    }
    // SAFETY: the caller promises that the descriptor is open and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Returns an error if the system call returned -1.
#[inline]
fn ret(result: c_int) -> Result<(), Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Returns the count that the system call returned, or an error if it is negative.
#[inline]
fn ret_usize(result: impl TryInto<usize>) -> Result<usize, Errno> {
    match result.try_into() {
        Ok(count) => Ok(count),
        Err(_) => Err(last_errno()),
    }
}

/// Returns the thread's `errno`, right after a failed call.
#[cold]
fn last_errno() -> Errno {
    Errno::new(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
}

fn errno(error: nix::Error) -> Errno {
    Errno::new(error as i32)
}

#[cfg(test)]
mod tests;
