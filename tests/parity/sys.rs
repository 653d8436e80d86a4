//! The system calls of the real side, by descriptor number: a comparison must also make the calls that are
//! wrong.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::{self, MaybeUninit};
use std::sync::RwLock;

use libc::{c_int, c_uint, c_void, socklen_t};

/// An address as bytes, whatever its family.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Address {
    bytes: Vec<u8>,
}

/// A result, with the error as its number.
pub(crate) type Result<T> = std::result::Result<T, c_int>;

/// Held for writing while the process's descriptor limit is 0.
static LIMIT: RwLock<()> = RwLock::new(());

/// Gives this thread a descriptor table of its own, with nothing open from 3 on.
pub(crate) fn own_descriptor_table() {
    // SAFETY: takes no pointer; unshare(2) "CLONE_FILES: ... unshare the file descriptor table".
    check(unsafe { libc::unshare(libc::CLONE_FILES) }).expect("unshare(CLONE_FILES) needs no privilege");
    close_from(3);
}

pub(crate) fn close_from(first: u32) {
    // SAFETY: takes no pointer. The table is this thread's alone, and it owns whatever is open there.
    check(unsafe { libc::close_range(first, c_uint::MAX, 0) }).unwrap();
}

pub(crate) fn close_between(first: u32, last: u32) {
    // SAFETY: as above.
    check(unsafe { libc::close_range(first, last, 0) }).unwrap();
}

pub(crate) fn close(fd: c_int) -> Result<()> {
    // SAFETY: takes no pointer; numbers are this thread's own, see `own_descriptor_table`.
    check(unsafe { libc::close(fd) }).map(drop)
}

pub(crate) fn dup(fd: c_int) -> Result<c_int> {
    opening(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::dup(fd) }
    })
}

pub(crate) fn dup2(fd: c_int, onto: c_int) -> Result<()> {
    opening(|| {
        // SAFETY: takes no pointer; `onto` is this thread's own number.
        unsafe { libc::dup2(fd, onto) }
    })
    .map(drop)
}

/// Moves a descriptor out of the way.
pub(crate) fn move_up(fd: c_int, least: c_int) -> c_int {
    let moved = opening(|| {
        // SAFETY: F_DUPFD_CLOEXEC takes an int.
        unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) }
    });
    close(fd).unwrap();
    moved.unwrap()
}

pub(crate) fn socket(domain: c_int, protocol: c_int) -> Result<c_int> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    opening(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::socket(domain, kind, protocol) }
    })
}

pub(crate) fn epoll_create() -> c_int {
    opening(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }
    })
    .unwrap()
}

pub(crate) fn eventfd() -> c_int {
    opening(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }
    })
    .unwrap()
}

pub(crate) fn timerfd() -> c_int {
    opening(|| {
        // SAFETY: takes no pointer.
        unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) }
    })
    .unwrap()
}

/// Sets a timer to expire once, a nanosecond from now.
pub(crate) fn timerfd_set(fd: c_int) {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_nsec: 1, ..zero } };
    // SAFETY: `value` is valid for the call; timerfd_settime(2): old_value "may be NULL".
    check(unsafe { libc::timerfd_settime(fd, 0, &raw const value, std::ptr::null_mut()) }).unwrap();
}

pub(crate) fn ring(fd: c_int) {
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
    let taken = check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), int(max), timeout) })?;
    Ok(events[..usize::try_from(taken).unwrap()].iter().map(|event| (event.u64, event.events)).collect())
}

pub(crate) fn poll(fd: c_int, asked: u32, timeout: c_int) -> u32 {
    let mut one = libc::pollfd { fd, events: i16::try_from(asked).unwrap(), revents: 0 };
    // poll(2) takes no more descriptors than the limit says.
    let _others_may = LIMIT.read().unwrap();
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
    // SAFETY: `bytes` has the 128 bytes that `length` says.
    check(unsafe { libc::getsockname(fd, bytes.as_mut_ptr().cast(), &raw mut length) }).unwrap();
    bytes.truncate(length as usize);
    Address { bytes }
}

/// Accepts, with the address of the peer as it was when it connected.
pub(crate) fn accept(fd: c_int) -> Result<(c_int, Address)> {
    opening_with(|| accept_unlocked(fd))
}

/// Accepts while the descriptor table of the process is full.
pub(crate) fn accept_with_full_table(fd: c_int) -> Result<(c_int, Address)> {
    let _alone = LIMIT.write().unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }).unwrap();
    let full = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: as above. Only opening fails meanwhile, and whoever opens holds the lock.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const full) }).unwrap();
    let accepted = accept_unlocked(fd);
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).unwrap();
    accepted
}

/// Reads what there is, up to 4096 bytes.
pub(crate) fn receive(fd: c_int) -> Result<u64> {
    let mut buffer = [0u8; 4096];
    // SAFETY: `buffer` has the length that is given.
    let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    u64::try_from(read).map_err(|_| errno())
}

/// Sends three bytes; what becomes of them is the receiver's to see.
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

/// The pending error of a socket.
pub(crate) fn take_error(fd: c_int) -> c_int {
    let mut error: c_int = 0;
    let mut length = 4 as socklen_t;
    let pointer = (&raw mut error).cast();
    // SAFETY: `error` has the 4 bytes that `length` says.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, pointer, &raw mut length) })
        .unwrap();
    error
}

pub(crate) const ESTABLISHED: u8 = 1;
pub(crate) const LISTEN: u8 = 10;

/// `TCP_INFO`: the state, and of a listener the length of its queue and its greatest backlog.
pub(crate) fn tcp_info(fd: c_int) -> Result<(u8, u32, u32)> {
    let mut info = MaybeUninit::<[u8; 32]>::zeroed();
    let mut length = 32 as socklen_t;
    let pointer = info.as_mut_ptr().cast();
    // SAFETY: `info` has the 32 bytes that `length` says.
    check(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut length) })?;
    // SAFETY: zeroed, and any bytes are a valid array of bytes.
    let info = unsafe { info.assume_init() };
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
    Ok((info[0], word(24), word(28)))
}

/// The address a family's socket binds to for a fresh one: port 0, or a Unix autobind.
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
    // SAFETY: `bytes` has the 128 bytes that `length` says.
    let accepted = check(unsafe { libc::accept4(fd, bytes.as_mut_ptr().cast(), &raw mut length, flags) })?;
    bytes.truncate(length as usize);
    Ok((accepted, Address { bytes }))
}

fn opening(open: impl FnOnce() -> c_int) -> Result<c_int> {
    opening_with(|| check(open()))
}

/// Waits while another test has the table full.
fn opening_with<T>(open: impl FnOnce() -> T) -> T {
    let _others_may = LIMIT.read().unwrap();
    open()
}

fn check(result: c_int) -> Result<c_int> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap()
}

fn int(size: usize) -> c_int {
    c_int::try_from(size).unwrap()
}

// --- threads
// -----------------------------------------------------------------------------------------------------

extern "C" fn nothing(_signal: c_int) {}

/// Keeps the test's signal pending in this thread but for the time of a wait.
pub(crate) fn hold_signal() {
    let handler: extern "C" fn(c_int) = nothing;
    // SAFETY: `nothing` is async-signal-safe; sigemptyset(3) and sigaddset(3) initialise what they are given.
    unsafe {
        libc::signal(libc::SIGUSR1, handler as libc::sighandler_t);
        let set = signal_set();
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Forgets the test's signal if it is pending.
pub(crate) fn forget_signal() {
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

/// Waits in an epoll without a timeout, and lets signals in meanwhile.
pub(crate) fn epoll_sleep(epoll: c_int, max: usize) -> Result<Vec<(u64, u32)>> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max];
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset(3) initialises the set; `events` has room for the `max` that the kernel may write.
    let taken = check(unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::epoll_pwait(epoll, events.as_mut_ptr(), int(max), -1, none.as_ptr())
    })?;
    Ok(events[..usize::try_from(taken).unwrap()].iter().map(|event| (event.u64, event.events)).collect())
}

/// What /proc tells of a thread: how it is, and the system call it is in.
pub(crate) struct EpollBackend {
    state: c_int,
    call: c_int,
}

impl EpollBackend {
    /// Watches a thread of this process, out of the way of the sequences' own descriptors.
    pub(crate) fn new(thread: c_int, least: c_int) -> Self {
        let open = |file| {
            let path = CString::new(format!("/proc/self/task/{thread}/{file}")).unwrap();
            let opened = opening(|| {
                // SAFETY: `path` is a C string.
                unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
            });
            move_up(opened.expect("/proc tells of the threads of this process"), least)
        };
        Self { state: open("stat"), call: open("syscall") }
    }

    /// Whether the thread sleeps in a wait on an epoll. The call alone does not tell: it also shows while the
    /// thread is being woken.
    pub(crate) fn sleeps_in_epoll(&self) -> bool {
        let state = read_again(self.state);
        let asleep = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'));
        let call = read_again(self.call);
        asleep && call.split(' ').next().and_then(|number| number.parse().ok()) == Some(libc::SYS_epoll_pwait)
    }
}

/// Reads a file of /proc anew.
fn read_again(fd: c_int) -> String {
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
