//! Descriptors that change hands between processes.

use std::ffi::{CString, c_char};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::FcntlArg;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{Errno, errno, last, length};

/// `SCM_MAX_FD` of the kernel: the most descriptors of one message (unix(7), "SCM_RIGHTS").
pub(crate) const RIGHTS_MAX: usize = 253;

/// `SD_LISTEN_FDS_START`: the first descriptor that is passed at the start of a program (sd_listen_fds(3)).
pub(crate) const FIRST_INHERITED: RawFd = 3;

/// `sendmsg(SCM_RIGHTS, MSG_NOSIGNAL)`: how many of `bytes` were taken; the descriptors go with the first of them.
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

/// What came with one message.
#[derive(Debug)]
pub(crate) struct Rights {
    /// How many bytes of the buffer were written; 0 is the end of the stream.
    pub(crate) length: usize,
    /// Close-on-exec, all of them.
    pub(crate) fds: Vec<OwnedFd>,
    /// Some were lost on the way, since this process has no descriptor left for them (MSG_CTRUNC).
    pub(crate) truncated: bool,
}

/// As much as the kernel can send: then nothing but want of descriptors can cut a message short.
#[repr(C, align(8))]
struct ControlBuffer([MaybeUninit<u8>; CONTROL_SIZE]);

/// `CMSG_SPACE(RIGHTS_MAX * sizeof(int))`, rounded up generously.
const CONTROL_SIZE: usize = 2048;

/// The lengths of a message have other types with other libcs.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::unnecessary_cast,
    reason = "2048, or what the kernel wrote into it"
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

/// `recvmsg(MSG_CMSG_CLOEXEC)`. By hand, since nix forgets the descriptors of a message that was cut short.
pub(crate) fn receive_rights(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Rights, Errno> {
    let mut control = ControlBuffer([MaybeUninit::uninit(); CONTROL_SIZE]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a `msghdr` is plain old data: zeros are a valid one, without address, parts or control buffer. (It has
    // padding on some targets, so that it cannot be written as a literal.)
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_control = control.0.as_mut_ptr().cast();
    lengths::set(&mut message, 1, CONTROL_SIZE);
    // SAFETY: recv(2): "The recvmsg() call uses a msghdr structure"; its one part and its control buffer are live
    // and writable for the whole call, and their lengths are true.
    let answer = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let length = length(answer)?;
    let mut fds = Vec::new();
    // SAFETY: cmsg(3): "CMSG_FIRSTHDR() returns a pointer to the first cmsghdr in the ancillary data buffer
    // associated with the passed msghdr", here as the kernel has just filled it in, or null.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, so it is a whole `cmsghdr` within `control`, written by the kernel, followed by the data
        // that its length tells of.
        unsafe { collect_rights(header, &mut fds) };
        // SAFETY: cmsg(3): "CMSG_NXTHDR() returns the next valid cmsghdr after the passed cmsghdr. It returns NULL
        // when there isn't enough space left in the buffer."
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Rights { length, fds, truncated: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// The descriptors of one control message.
///
/// # Safety
///
/// `header` is a control message of a `recvmsg` that has just returned, and none of its descriptors is owned yet.
unsafe fn collect_rights(header: *const libc::cmsghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the caller promises a whole header.
    let head = unsafe { header.read() };
    if head.cmsg_level != libc::SOL_SOCKET || head.cmsg_type != libc::SCM_RIGHTS {
        return;
    }
    // SAFETY: cmsg(3): "CMSG_DATA() returns a pointer to the data portion of a cmsghdr".
    let data = unsafe { libc::CMSG_DATA(header) };
    let begins = (data as usize).saturating_sub(header as usize);
    let count = lengths::of(&head).saturating_sub(begins) / size_of::<RawFd>();
    for at in 0..count {
        // SAFETY: cmsg_len is the "Data byte count, including header"; so many numbers stand there, "The pointer
        // returned cannot be assumed to be suitably aligned". unix(7): "a set of open file descriptors", each of
        // them new in this process, and owned by nobody else.
        fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(at).read_unaligned()) });
    }
}

/// The descriptors that were passed at the start of this program, with their names: close-on-exec from now on. Once.
pub(crate) fn take_inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // Asked first: names that stand beside a stranger's LISTEN_PID would be an error, for they fit no descriptor.
    if sd_notify::listen_fds()?.len() == 0 {
        return Ok(Vec::new());
    }
    let named = sd_notify::listen_fds_with_names()?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        let why = "the inherited listeners were taken before: keep what the first call gave";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    // SAFETY: sd_listen_fds(3): they "have been passed by the service manager" to the process that LISTEN_PID names,
    // which is this one, and they are open: setting close-on-exec has just succeeded. The flag above gives them to
    // one caller only.
    Ok(named.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}

/// `fcntl(F_DUPFD_CLOEXEC)`: a duplicate with the lowest free number from `lowest` on.
pub(crate) fn duplicate_from(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd, Errno> {
    let number = nix::fcntl::fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest)).map_err(errno)?;
    // SAFETY: F_DUPFD(2const): "On success, returns the new file descriptor", which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A program about to be executed in a child: its arguments and environment, complete but for `LISTEN_PID`, and the
/// descriptors it is to find from [`FIRST_INHERITED`] on.
///
/// Everything is allocated here: after the fork of a process with threads nothing may be (fork(2)).
pub(crate) struct Image {
    /// Invariant: `argv` and `envp` point into these, end with a null, and nobody changes them.
    _args: Vec<CString>,
    _env: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// `LISTEN_PID=`, room for the digits of any process id, and a terminating zero; in `envp` too.
    pid: Vec<u8>,
    /// Invariant: their numbers are beyond those that they are to have.
    fds: Vec<OwnedFd>,
}

// SAFETY: the pointers lead into heap memory that the image owns and that is only read, or written through `&mut`.
unsafe impl Send for Image {}
// SAFETY: as above; no method takes `&self`.
unsafe impl Sync for Image {}

impl Image {
    const PID: &[u8] = b"LISTEN_PID=";
    /// The digits of `i32::MAX`.
    const DIGITS: usize = 10;

    /// `args` begins with the program; `env` holds no `LISTEN_PID`.
    pub(crate) fn new(args: Vec<CString>, env: Vec<CString>, fds: Vec<OwnedFd>) -> Self {
        let mut pid = Self::PID.to_vec();
        pid.resize(Self::PID.len() + Self::DIGITS + 1, 0);
        let point = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>();
        let (mut argv, mut envp) = (point(&args), point(&env));
        argv.push(ptr::null());
        envp.extend([pid.as_mut_ptr().cast_const().cast(), ptr::null()]);
        Self { _args: args, _env: env, argv, envp, pid, fds }
    }

    /// In the child: becomes the program. Returns only what went wrong, and calls nothing that is not
    /// async-signal-safe.
    fn become_it(&mut self) -> Errno {
        for (target, fd) in (FIRST_INHERITED..).zip(&self.fds) {
            // SAFETY: the call takes no pointer. dup(2): "If the file descriptor newfd was previously open, it is
            // closed before being reused": this child's copy of it, moments before the child becomes another program.
            if unsafe { libc::dup2(fd.as_raw_fd(), target) } == -1 {
                return last();
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
        // invariants of the fields; it does not return if it succeeds.
        unsafe { libc::execvpe(self.argv[0], self.argv.as_ptr(), self.envp.as_ptr()) };
        last()
    }
}

/// Has the child that `command` spawns become `image`, after everything else that was asked of the command.
pub(crate) fn replace_image(command: &mut Command, mut image: Image) {
    // SAFETY: `pre_exec` asks for what is safe "in the context of a forked process": `become_it` allocates nothing,
    // takes no lock, and calls dup2, getpid and exec (signal-safety(7)).
    unsafe { command.pre_exec(move || Err(image.become_it().into())) };
}

/// What decides of which kind a listener is: address family, type and protocol.
pub(crate) fn socket_kind(fd: &impl AsFd) -> Result<(i32, i32, i32), Errno> {
    let ask = |option| super::options::int(fd.as_fd(), libc::SOL_SOCKET, option);
    Ok((ask(libc::SO_DOMAIN)?, ask(libc::SO_TYPE)?, ask(libc::SO_PROTOCOL)?))
}
