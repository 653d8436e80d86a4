//! Passing descriptors between processes: `SCM_RIGHTS`, and inheritance across execve(2).

use std::env;
use std::ffi::{CString, c_char, c_int};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::FcntlArg;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{Errno, errno, last_errno, ret_usize};

/// `SCM_MAX_FD` of the kernel: the maximum number of descriptors per message (unix(7), "SCM_RIGHTS").
pub(crate) const RIGHTS_MAX: usize = 253;

/// `SD_LISTEN_FDS_START`: the first descriptor passed to a program (sd_listen_fds(3)).
pub(crate) const LISTEN_FDS_START: RawFd = 3;

/// `SCM_PIDFD` of the kernel's `linux/socket.h` (Linux 6.5), which not every libc has.
const SCM_PIDFD: c_int = 4;

/// `sendmsg(SCM_RIGHTS, MSG_NOSIGNAL)`: returns the number of bytes sent; the descriptors go with the first byte.
pub(crate) fn send_rights(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(errno)
}

/// A received message.
#[derive(Debug)]
pub(crate) struct Rights {
    /// The number of bytes written to the buffer; 0 is the end of the stream.
    pub(crate) length: usize,
    /// The descriptors of `SCM_RIGHTS`, all close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// The kernel dropped descriptors, because this process has too few free ones (`MSG_CTRUNC`).
    pub(crate) truncated: bool,
}

/// Large enough for every message: only a lack of free descriptors can truncate one.
#[repr(C, align(8))]
struct ControlBuffer([MaybeUninit<u8>; CONTROL_SIZE]);

/// `CMSG_SPACE(RIGHTS_MAX * sizeof(int))` is 1032 bytes; the rest is for `SO_PASSCRED`, `SO_PASSPIDFD` and
/// `SO_PASSSEC`.
const CONTROL_SIZE: usize = 2048;

/// The length fields of a message, whose types differ between libcs.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::unnecessary_cast,
    reason = "at most CONTROL_SIZE, or written by the kernel"
)]
mod lengths {
    pub(super) fn set(message: &mut libc::msghdr, parts: usize, control: usize) {
        message.msg_iovlen = parts as _;
        message.msg_controllen = control as _;
    }

    pub(super) fn of(header: &libc::cmsghdr) -> usize {
        header.cmsg_len as usize
    }
}

/// `recvmsg(MSG_CMSG_CLOEXEC)`. Through libc, because nix leaks the descriptors of a truncated message.
///
/// Closes the descriptor that the kernel adds to each message on a socket with `SO_PASSPIDFD`.
pub(crate) fn receive_rights(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Rights, Errno> {
    let mut control = ControlBuffer([MaybeUninit::uninit(); CONTROL_SIZE]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a `msghdr` is plain old data: zeros are a valid one, without address, parts or control buffer. (It has
    // padding on some targets, so it cannot be written as a literal.)
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_control = control.0.as_mut_ptr().cast();
    lengths::set(&mut message, 1, CONTROL_SIZE);
    // SAFETY: recv(2): "The recvmsg() call uses a msghdr structure"; its one part and its control buffer are live
    // and writable for the whole call, and their lengths are true.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let length = ret_usize(result)?;
    let mut fds = Vec::new();
    // SAFETY: cmsg(3): "CMSG_FIRSTHDR() returns a pointer to the first cmsghdr in the ancillary data buffer
    // associated with the passed msghdr", here as the kernel has just filled it in, or null.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, so it is a whole `cmsghdr` within `control`, written by the kernel and followed by its
        // data; no earlier iteration has visited it.
        unsafe { collect_fds(header, &mut fds) };
        // SAFETY: cmsg(3): "CMSG_NXTHDR() returns the next valid cmsghdr after the passed cmsghdr. It returns NULL
        // when there isn't enough space left in the buffer."
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Rights { length, fds, truncated: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Takes ownership of the descriptors of one control message: adds those of `SCM_RIGHTS` to `fds`, closes that of
/// `SCM_PIDFD`.
///
/// # Safety
///
/// `header` is a control message of a `recvmsg` that has just returned, and its descriptors have no owner yet.
unsafe fn collect_fds(header: *const libc::cmsghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the caller promises a whole header.
    let head = unsafe { header.read() };
    if head.cmsg_level != libc::SOL_SOCKET || !matches!(head.cmsg_type, libc::SCM_RIGHTS | SCM_PIDFD) {
        return;
    }
    // SAFETY: cmsg(3): "CMSG_DATA() returns a pointer to the data portion of a cmsghdr".
    let data = unsafe { libc::CMSG_DATA(header) };
    let data_offset = (data as usize).saturating_sub(header as usize);
    let count = lengths::of(&head).saturating_sub(data_offset) / size_of::<RawFd>();
    for index in 0..count {
        // SAFETY: cmsg_len is the "Data byte count, including header", so `count` numbers follow the header; "The
        // pointer returned cannot be assumed to be suitably aligned".
        let number = unsafe { data.cast::<RawFd>().add(index).read_unaligned() };
        // An SCM_PIDFD holds a negative errno if the kernel could not create the pidfd.
        if number < 0 {
            continue;
        }
        // SAFETY: unix(7): SCM_RIGHTS is "a set of open file descriptors", and SCM_PIDFD is a pidfd of the sender;
        // each descriptor is new in this process and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        if head.cmsg_type == libc::SCM_RIGHTS {
            fds.push(fd);
        }
    }
}

/// Takes ownership of the descriptors that `LISTEN_FDS` passes to this process, with their names, and sets
/// close-on-exec on them.
///
/// Returns an error before it changes anything if a descriptor is not open or has close-on-exec set: execve(2) would
/// have closed it, so this process opened it.
///
/// # Safety
///
/// If `LISTEN_PID` is this process, the descriptors that `LISTEN_FDS` counts have no other owner.
pub(crate) unsafe fn take_listen_fds() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: Mutex<bool> = Mutex::new(false);

    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = listen_fds_count();
    if count > 0 && *taken {
        let message = "the listeners were already taken: keep the result of the first call";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    if count > 0 && env::var("LISTEN_FDNAMES").is_ok_and(|names| names.split(':').count() != count) {
        let message = format!("LISTEN_FDNAMES must have {count} names, as many as LISTEN_FDS counts");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    for number in (LISTEN_FDS_START..).take(count) {
        check_inherited(number)?;
    }
    // With the LISTEN_PID of another process `listen_fds_with_names` is an error: the names match no descriptors.
    if sd_notify::listen_fds()?.len() == 0 {
        return Ok(Vec::new());
    }
    let named = sd_notify::listen_fds_with_names()?;
    *taken = true;
    // SAFETY: sd_listen_fds(3): they "have been passed by the service manager" to the process that LISTEN_PID names,
    // which is this one. They are open: setting close-on-exec has just succeeded. The caller promises that they have
    // no other owner, and `taken` hands them out once.
    Ok(named.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}

/// Returns the number of descriptors that are passed to this process; 0 if the variables are missing, malformed (which
/// sd-notify reports), or for another process.
fn listen_fds_count() -> usize {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == process::id() => usize::try_from(count).unwrap_or(usize::MAX),
        _ => 0,
    }
}

/// Returns an error unless the descriptor is open without close-on-exec, as execve(2) leaves it.
fn check_inherited(number: RawFd) -> io::Result<()> {
    // SAFETY: the call takes no pointer, and F_GETFD changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        return Err(last_errno().into());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        let message = format!(
            "descriptor {number} of LISTEN_FDS has FD_CLOEXEC set, so this process opened it: check the variables, \
             and take the listeners only once"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// `fcntl(F_DUPFD_CLOEXEC)`: duplicates a descriptor to the lowest free number that is at least `lowest`.
pub(crate) fn duplicate_from(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd, Errno> {
    let number = nix::fcntl::fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest)).map_err(errno)?;
    // SAFETY: F_DUPFD(2const): "On success, returns the new file descriptor", which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The program that a child executes: its arguments, its environment without `LISTEN_PID`, and the descriptors that it
/// inherits from [`LISTEN_FDS_START`] on.
///
/// Everything is allocated before the fork: afterwards the child of a multithreaded process must not allocate
/// (fork(2)).
pub(crate) struct Exec {
    /// Invariant: `argv` and `envp` point into these strings and end with a null; the strings never change.
    _args: Vec<CString>,
    _env: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// `LISTEN_PID=`, space for the digits of a process id, and a NUL; `envp` points to it too.
    pid: Vec<u8>,
    /// Invariant: each number is greater than every target number.
    fds: Vec<OwnedFd>,
}

// SAFETY: the pointers point into heap memory that `Exec` owns, which is only read, or written through `&mut`.
unsafe impl Send for Exec {}
// SAFETY: as above; no method takes `&self`.
unsafe impl Sync for Exec {}

impl Exec {
    const PID: &[u8] = b"LISTEN_PID=";
    /// The number of digits of `i32::MAX`.
    const DIGITS: usize = 10;

    /// Prepares the program `args[0]`; `env` contains no `LISTEN_PID`.
    pub(crate) fn new(args: Vec<CString>, env: Vec<CString>, fds: Vec<OwnedFd>) -> Self {
        let mut pid = Self::PID.to_vec();
        pid.resize(Self::PID.len() + Self::DIGITS + 1, 0);
        let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>();
        let (mut argv, mut envp) = (pointers(&args), pointers(&env));
        argv.push(ptr::null());
        envp.extend([pid.as_mut_ptr().cast_const().cast(), ptr::null()]);
        Self { _args: args, _env: env, argv, envp, pid, fds }
    }

    /// Executes the program in the child, with async-signal-safe calls only. Returns only on an error.
    fn exec(&mut self) -> Errno {
        for (target, fd) in (LISTEN_FDS_START..).zip(&self.fds) {
            // SAFETY: the call takes no pointer. dup(2): "If the file descriptor newfd was previously open, it is
            // closed before being reused": it is the child's copy, and the child executes another program next.
            if unsafe { libc::dup2(fd.as_raw_fd(), target) } == -1 {
                return last_errno();
            }
        }
        // SAFETY: the call takes no pointer and cannot fail.
        let mut pid = unsafe { libc::getpid() };
        let mut digits = [0_u8; Self::DIGITS];
        let mut first = Self::DIGITS;
        while first > 0 && (pid > 0 || first == Self::DIGITS) {
            first -= 1;
            digits[first] = b'0' + u8::try_from(pid % 10).unwrap_or(0);
            pid /= 10;
        }
        for (to, digit) in self.pid[Self::PID.len()..].iter_mut().zip(&digits[first..]) {
            *to = *digit;
        }
        // SAFETY: execve(2): both are "an array of pointers to strings ... terminated by a null pointer", by the
        // invariants of the fields; the call does not return on success.
        unsafe { libc::execvpe(self.argv[0], self.argv.as_ptr(), self.envp.as_ptr()) };
        last_errno()
    }
}

/// Makes the child of `command` execute `program`, after every other step of the command.
pub(crate) fn exec_in_child(command: &mut Command, mut program: Exec) {
    // SAFETY: `pre_exec` requires a closure that is safe "in the context of a forked process": `exec` allocates
    // nothing, takes no lock, and calls dup2, getpid and exec (signal-safety(7)).
    unsafe { command.pre_exec(move || Err(program.exec().into())) };
}

/// Returns the address family, type and protocol of a socket.
pub(crate) fn socket_kind(fd: &impl AsFd) -> Result<(i32, i32, i32), Errno> {
    let option = |option| super::options::int(fd.as_fd(), libc::SOL_SOCKET, option);
    Ok((option(libc::SO_DOMAIN)?, option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?))
}
