//! The system calls of `real`. Descriptors are plain numbers, because a comparison also makes invalid calls.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::{self, MaybeUninit};
use std::sync::{RwLock, RwLockReadGuard};

use libc::{c_int, c_uint, c_void, socklen_t};

/// A socket address of any family, as bytes.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Address {
    bytes: Vec<u8>,
}

/// A result with an errno.
pub(crate) type Result<T> = std::result::Result<T, c_int>;

/// Write-locked while `RLIMIT_NOFILE` is 0.
static LIMIT: RwLock<()> = RwLock::new(());

/// Unshares the descriptor table of this thread and closes descriptors from 3 on.
pub(crate) fn unshare_descriptor_table() {
    // SAFETY: takes no pointer; unshare(2) "CLONE_FILES: ... unshare the file descriptor table".
    check(unsafe { libc::unshare(libc::CLONE_FILES) }).expect("unshare(CLONE_FILES) needs no privilege");
    close_from(3);
}

pub(crate) fn close_from(first: u32) {
    // SAFETY: takes no pointer. The descriptor table is private to this thread, which owns every descriptor in it.
    check(unsafe { libc::close_range(first, c_uint::MAX, 0) }).unwrap();
}

pub(crate) fn close_between(first: u32, last: u32) {
    // SAFETY: as above.
    check(unsafe { libc::close_range(first, last, 0) }).unwrap();
}

pub(crate) fn close(fd: c_int) -> Result<()> {
    // SAFETY: takes no pointer; numbers are this thread's own, see `unshare_descriptor_table`.
    check(unsafe { libc::close(fd) }).map(drop)
}

pub(crate) fn dup(fd: c_int) -> Result<c_int> {
    open_descriptor(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::dup(fd) }
    })
}

pub(crate) fn dup2(fd: c_int, onto: c_int) -> Result<()> {
    open_descriptor(|| {
        // SAFETY: takes no pointer; `onto` is this thread's own number.
        unsafe { libc::dup2(fd, onto) }
    })
    .map(drop)
}

/// Moves a descriptor to a number of at least `least`.
pub(crate) fn move_up(fd: c_int, least: c_int) -> c_int {
    let moved = open_descriptor(|| {
        // SAFETY: F_DUPFD_CLOEXEC takes an to_c_int.
        unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) }
    });
    close(fd).unwrap();
    moved.unwrap()
}

pub(crate) fn socket(domain: c_int, protocol: c_int) -> Result<c_int> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    open_descriptor(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::socket(domain, kind, protocol) }
    })
}

pub(crate) fn epoll_create() -> c_int {
    open_descriptor(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }
    })
    .unwrap()
}

pub(crate) fn eventfd() -> c_int {
    open_descriptor(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }
    })
    .unwrap()
}

pub(crate) fn timerfd() -> c_int {
    open_descriptor(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) }
    })
    .unwrap()
}

/// Arms a timer to expire once, in 1 ns.
pub(crate) fn timerfd_set(fd: c_int) {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_nsec: 1, ..zero } };
    // SAFETY: `value` is valid for the call; timerfd_settime(2): old_value "may be NULL".
    check(unsafe { libc::timerfd_settime(fd, 0, &raw const value, std::ptr::null_mut()) }).unwrap();
}

pub(crate) fn write_eventfd(fd: c_int) {
    let one = 1u64;
    // SAFETY: eventfd(2): write(2) takes the 8 bytes of an integer, and `one` has 8.
    let written = unsafe { libc::write(fd, (&raw const one).cast(), 8) };
    assert_eq!(written, 8);
}

pub(crate) fn epoll_ctl(epoll: c_int, op: c_int, fd: c_int, events: u32, data: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` is valid for the call; the kernel copies it.
    check(unsafe { libc::epoll_ctl(epoll, op, fd, &raw mut event) }).map(drop)
}

pub(crate) fn epoll_wait(epoll: c_int, max: usize, timeout: c_int) -> Result<Vec<(u64, u32)>> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max];
    // SAFETY: `events` has room for the `max` that the kernel may write.
    let taken = check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), to_c_int(max), timeout) })?;
    Ok(events[..usize::try_from(taken).unwrap()].iter().map(|event| (event.u64, event.events)).collect())
}

pub(crate) fn poll(fd: c_int, requested: u32, timeout: c_int) -> u32 {
    let mut one = libc::pollfd { fd, events: i16::try_from(requested).unwrap(), revents: 0 };
    // poll(2) fails if nfds exceeds RLIMIT_NOFILE.
    let _shared = share_limit();
    // SAFETY: one valid pollfd.
    check(unsafe { libc::poll(&raw mut one, 1, timeout) }).unwrap();
    u32::from(u16::from_ne_bytes(one.revents.to_ne_bytes()))
}

pub(crate) fn listen(fd: c_int, backlog: c_int) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(fd, backlog) }).map(drop)
}

pub(crate) fn shutdown(fd: c_int, how: c_int) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::shutdown(fd, how) }).map(drop)
}

pub(crate) fn bind(fd: c_int, to: &Address) -> Result<()> {
    // SAFETY: `bytes` holds a socket address of the length that is given.
    check(unsafe { libc::bind(fd, to.bytes.as_ptr().cast(), to.length()) }).map(drop)
}

pub(crate) fn connect(fd: c_int, to: &Address) -> Result<()> {
    // SAFETY: `bytes` holds a socket address of the length that is given.
    check(unsafe { libc::connect(fd, to.bytes.as_ptr().cast(), to.length()) }).map(drop)
}

pub(crate) fn local_address(fd: c_int) -> Address {
    let mut bytes = vec![0u8; 128];
    let mut length = 128 as socklen_t;
    // SAFETY: `bytes` has the 128 bytes that `length` states.
    check(unsafe { libc::getsockname(fd, bytes.as_mut_ptr().cast(), &raw mut length) }).unwrap();
    bytes.truncate(length as usize);
    Address { bytes }
}

/// Accepts a connection, with the address of the peer.
pub(crate) fn accept(fd: c_int) -> Result<(c_int, Address)> {
    with_shared_limit(|| accept_unlocked(fd))
}

/// Accepts while the descriptor table is full.
pub(crate) fn accept_with_full_table(fd: c_int) -> Result<(c_int, Address)> {
    let _exclusive = LIMIT.write().unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }).unwrap();
    let full = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: as above. The limit affects only calls that open descriptors or poll, and these take the lock.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const full) }).unwrap();
    let accepted = accept_unlocked(fd);
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).unwrap();
    accepted
}

/// Reads up to 4096 bytes, without blocking.
pub(crate) fn receive(fd: c_int) -> Result<u64> {
    let mut buffer = [0u8; 4096];
    // SAFETY: `buffer` has the length that is given.
    let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    u64::try_from(read).map_err(|_| errno())
}

/// Sends three bytes. Errors are ignored: the receiver observes them.
pub(crate) fn send(fd: c_int) {
    // SAFETY: three valid bytes.
    unsafe { libc::send(fd, b"abc".as_ptr().cast(), 3, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
}

pub(crate) fn set_option<T>(fd: c_int, level: c_int, name: c_int, value: &T) {
    let length = socklen_t::try_from(mem::size_of::<T>()).unwrap();
    // SAFETY: `value` is valid and has the length that is given.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast::<c_void>(), length) })
        .unwrap();
}

/// Returns and clears the pending error of a socket (`SO_ERROR`).
pub(crate) fn take_error(fd: c_int) -> c_int {
    let mut error: c_int = 0;
    let mut length = 4 as socklen_t;
    let pointer = (&raw mut error).cast();
    // SAFETY: `error` has the 4 bytes that `length` states.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, pointer, &raw mut length) })
        .unwrap();
    error
}

pub(crate) const ESTABLISHED: u8 = 1;
pub(crate) const LISTEN: u8 = 10;

/// Returns the state from `TCP_INFO` and, for a listener, the length of its queue and its backlog.
pub(crate) fn tcp_info(fd: c_int) -> Result<(u8, u32, u32)> {
    let mut info = MaybeUninit::<[u8; 32]>::zeroed();
    let mut length = 32 as socklen_t;
    let pointer = info.as_mut_ptr().cast();
    // SAFETY: `info` has the 32 bytes that `length` states.
    check(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut length) })?;
    // SAFETY: zeroed, and any bytes are a valid array of bytes.
    let info = unsafe { info.assume_init() };
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
    Ok((info[0], word(24), word(28)))
}

/// Returns an address to bind to an unused one: loopback with port 0, or a Unix autobind.
pub(crate) fn any_address(domain: c_int) -> Address {
    let mut bytes = u16::try_from(domain).unwrap().to_ne_bytes().to_vec();
    match domain {
        libc::AF_INET => {
            bytes.extend([0, 0, 127, 0, 0, 1]);
            bytes.resize(mem::size_of::<libc::sockaddr_in>(), 0);
        }
        libc::AF_INET6 => {
            bytes.resize(mem::size_of::<libc::sockaddr_in6>(), 0);
            bytes[8 + 15] = 1;
        }
        _ => {}
    }
    Address { bytes }
}

impl Address {
    pub(crate) fn is_unix(&self) -> bool {
        self.bytes[..2] == u16::try_from(libc::AF_UNIX).unwrap().to_ne_bytes()
    }

    fn length(&self) -> socklen_t {
        socklen_t::try_from(self.bytes.len()).unwrap()
    }
}

fn accept_unlocked(fd: c_int) -> Result<(c_int, Address)> {
    let mut bytes = vec![0u8; 128];
    let mut length = 128 as socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `bytes` has the 128 bytes that `length` states.
    let accepted = check(unsafe { libc::accept4(fd, bytes.as_mut_ptr().cast(), &raw mut length, flags) })?;
    bytes.truncate(length as usize);
    Ok((accepted, Address { bytes }))
}

fn open_descriptor(open: impl FnOnce() -> c_int) -> Result<c_int> {
    with_shared_limit(|| check(open()))
}

/// Runs `open` while no other test has the descriptor table full.
fn with_shared_limit<T>(open: impl FnOnce() -> T) -> T {
    let _shared = share_limit();
    open()
}

/// Lets no other test make the descriptor table full while the guard exists.
pub(crate) fn share_limit() -> RwLockReadGuard<'static, ()> {
    LIMIT.read().unwrap()
}

fn check(result: c_int) -> Result<c_int> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap()
}

fn to_c_int(size: usize) -> c_int {
    c_int::try_from(size).unwrap()
}

// Threads and signals.

extern "C" fn ignore(_signal: c_int) {}

/// Blocks SIGUSR1 in this thread, except during [`epoll_sleep`].
pub(crate) fn block_signal() {
    let handler: extern "C" fn(c_int) = ignore;
    // SAFETY: `ignore` is async-signal-safe; sigemptyset(3) and sigaddset(3) initialise what they are given.
    unsafe {
        libc::signal(libc::SIGUSR1, handler as libc::sighandler_t);
        let set = signal_set();
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Discards a pending SIGUSR1.
pub(crate) fn discard_signal() {
    let set = signal_set();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: sigtimedwait(2): info may be NULL; the others are valid for the call.
    while unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now) } >= 0 {}
}

pub(crate) fn signal(thread: c_int) {
    // SAFETY: takes no pointer; the thread is one of this process and handles the signal.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
    assert_eq!(sent, 0);
}

pub(crate) fn thread_id() -> c_int {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::gettid() }
}

/// Waits in an epoll without a timeout and with signals unblocked.
pub(crate) fn epoll_sleep(epoll: c_int, max: usize) -> Result<Vec<(u64, u32)>> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max];
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset(3) initialises the set; `events` has room for the `max` that the kernel may write.
    let taken = check(unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::epoll_pwait(epoll, events.as_mut_ptr(), to_c_int(max), -1, none.as_ptr())
    })?;
    Ok(events[..usize::try_from(taken).unwrap()].iter().map(|event| (event.u64, event.events)).collect())
}

/// The state of a thread in /proc, and its current system call.
pub(crate) struct ThreadProbe {
    state: c_int,
    call: c_int,
}

impl ThreadProbe {
    /// Opens the /proc files of a thread of this process, with descriptors of at least `least`.
    pub(crate) fn new(thread: c_int, least: c_int) -> Self {
        let open = |file| {
            let path = CString::new(format!("/proc/self/task/{thread}/{file}")).unwrap();
            let insert_descriptor = open_descriptor(|| {
                // SAFETY: `path` is a C string.
                unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
            });
            move_up(insert_descriptor.expect("/proc has the threads of this process"), least)
        };
        Self { state: open("stat"), call: open("syscall") }
    }

    /// Returns whether the thread is blocked in an epoll wait. The system call alone does not show it: /proc also shows
    /// the call while the thread is waking.
    pub(crate) fn is_blocked_in_epoll(&self) -> bool {
        let state = read_proc(self.state);
        let asleep = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'));
        let call = read_proc(self.call);
        asleep && call.split(' ').next().and_then(|number| number.parse().ok()) == Some(libc::SYS_epoll_pwait)
    }
}

/// Reads a /proc file from its start.
fn read_proc(fd: c_int) -> String {
    let mut text = [0u8; 512];
    // SAFETY: `text` has the length that is given.
    let length = unsafe { libc::pread(fd, text.as_mut_ptr().cast(), text.len(), 0) };
    String::from_utf8_lossy(&text[..usize::try_from(length).unwrap_or(0)]).into_owned()
}

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset(3) initialises the set that sigaddset(3) adds to.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1);
        set.assume_init()
    }
}
