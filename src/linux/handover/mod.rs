//! Zero-downtime restart: passing listeners to another process (feature `handover`).
//!
//! A listening socket and its accept queue exist while any process has a descriptor of the socket. The old process
//! therefore passes the *same socket* to the new one before it closes its own descriptor, and no connection is lost:
//!
//! * at the start of the new program, by the socket activation protocol of systemd: [`spawn`] and [`from_env`];
//! * at any time, over a Unix socket (`SCM_RIGHTS`): [`send`] and [`receive`].
//!
//! # Order of steps
//!
//! 1. The old process sends the listeners and **continues to accept**.
//! 2. The new process receives them, registers its acceptors and calls [`confirm`].
//! 3. The old process returns from [`await_confirmation`] and deregisters: [`Control::stop`] and a pass, or
//!    [`into_listener`].
//! 4. It closes its listener, which resets no connection because the socket stays open in the new process, finishes
//!    its connections, and exits.
//!
//! If the new process fails before step 3, the old one continues to serve.
//!
//! [The guide](crate::guide::handover) describes these steps in full, and how a service ends.
//!
//! # Traps
//!
//! ## Deregister in the old process
//!
//! `close` does not delete a registration while the socket is open in another process. The epoll of the old process
//! would forever report connections that it can no longer accept; an exclusive registration would also take the
//! wakeups of the new process.
//!
//! ## Do not shut the socket down
//!
//! [`Control::shutdown_gracefully`] acts on the socket, which both processes share: with `Pending::Serve` or `Refuse`
//! the next process would get no clients. If a listener was handed over, or a service manager holds it, end with
//! `Pending::Keep`.
//!
//! ## Restrict the Unix socket
//!
//! Any process that can connect to the handover socket gets the listeners. Create it where only its owner has access.
//!
//! ## `O_NONBLOCK` is shared
//!
//! `O_NONBLOCK` is a flag of the open file description: if one process clears it, accepts block in the other, too. The
//! backlog and socket options are also shared.
//!
//! ## Unix socket paths
//!
//! After the handover the path belongs to the new process: an old process that unlinks it on exit makes its successor
//! unreachable. Binding the path again makes a second socket, without the queue of the first.
//!
//! [`Control::shutdown_gracefully`]: crate::Control::shutdown_gracefully
//! [`Control::stop`]: crate::Control::stop
//! [`into_listener`]: crate::EpollAcceptor::into_listener

mod listeners;

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use super::sys;
use super::sys::rights::{self, Exec, LISTEN_FDS_START, RIGHTS_MAX};

pub use listeners::{Listeners, Received};

/// Takes the listeners that a service manager or [`spawn`] passed to this program.
///
/// Reads `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` as sd_listen_fds(3) defines them. If they are missing or name
/// another process, returns no listeners: the program opens its own. A descriptor without a name is named `"unknown"`.
/// Sets close-on-exec on every descriptor.
///
/// Call it once, at the start of `main`: until then, executed programs inherit the descriptors. The variables stay set,
/// because removing them is not thread-safe; `LISTEN_PID` does not match an executed child. See
/// [sd_listen_fds(3)](https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html).
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::handover;
///
/// # fn main() -> std::io::Result<()> {
/// // SAFETY: the service manager sets the variables, and no other code has taken the descriptors.
/// let mut listeners = unsafe { handover::from_env() }?;
/// let listener = match listeners.is_empty() {
///     true => TcpListener::bind("127.0.0.1:0")?,
///     false => listeners.take_tcp("http")?,
/// };
/// # Ok(())
/// # }
/// ```
///
/// ## Programs in between
///
/// `LISTEN_PID` names one process id. A shell script that does not `exec` the server, or a supervisor that forks again,
/// makes it wrong: then there are no listeners and no error, as the protocol demands.
///
/// # Errors
///
/// An error takes no descriptor and changes no flag.
///
/// * [`InvalidInput`](io::ErrorKind::InvalidInput) if the variables are malformed or contradict each other, or if a
///   descriptor has `FD_CLOEXEC` set: execve(2) would have closed it, so this program opened it;
/// * `EBADF` if one of the descriptors is not open;
/// * [`AlreadyExists`](io::ErrorKind::AlreadyExists) if an earlier call took the listeners.
///
/// # Safety
///
/// If `LISTEN_PID` is the id of this process, no other object may own the descriptors 3 to 3 + `LISTEN_FDS` - 1:
/// dropping the returned listeners closes them. In a program that systemd or [`spawn`] started, this holds until other
/// code takes the descriptors. The checks above detect only descriptors opened with `FD_CLOEXEC`, as std opens all of
/// its own.
#[doc(alias = "sd_listen_fds")]
#[doc(alias = "LISTEN_FDS")]
#[allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "passes the caller's promise to `take_listen_fds` unchanged; unsafe blocks stay in `sys`"
)]
pub unsafe fn from_env() -> io::Result<Listeners> {
    Ok(Listeners::new(rights::take_listen_fds()?))
}

/// Starts a program that inherits these listeners, by the protocol of [`from_env`].
///
/// In the child, the descriptors from 3 on are the listeners, in this order, and `LISTEN_PID`, `LISTEN_FDS` and
/// `LISTEN_FDNAMES` describe them. The listeners replace other descriptors at these numbers. This process clears no
/// close-on-exec flag, so no program that another thread executes inherits them. See
/// [sd_listen_fds(3)](https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html).
///
/// ```no_run
/// use std::net::TcpListener;
/// use std::process::Command;
/// use epoll_acceptor::handover;
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let successor = handover::spawn(Command::new(std::env::current_exe()?), &[("http", &listener)])?;
/// # Ok(())
/// # }
/// ```
///
/// ## Ignored settings of the command
///
/// [`Command`] does not expose `env_clear` and `arg0`. The child gets the environment of this process with the
/// additions and removals of the command, and its program as argument 0. This process's `PATH` locates the program.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for 0 or more than 253 listeners, a name that `LISTEN_FDNAMES` cannot
/// contain (empty, over 255 bytes, with a colon, not printable ASCII), a descriptor that is not listening, or a NUL in
/// an argument or variable; otherwise the error of [`Command::spawn`].
#[doc(alias = "LISTEN_PID")]
pub fn spawn<F: AsFd>(mut command: Command, listeners: &[(&str, F)]) -> io::Result<Child> {
    let named = check(listeners)?;
    let end = LISTEN_FDS_START + i32::try_from(named.len()).unwrap_or(i32::MAX - LISTEN_FDS_START);
    // Duplicates above the target numbers: a `dup2` in the child must not overwrite a listener that is still to be
    // moved.
    let fds = named.iter().map(|(_, fd)| rights::duplicate_from(*fd, end)).collect::<Result<Vec<_>, _>>()?;
    // Occupies the target numbers: `Command::spawn` must not open its own pipes there.
    let mut placeholders = Vec::new();
    for (_, fd) in named.iter().cycle() {
        let placeholder = rights::duplicate_from(*fd, LISTEN_FDS_START)?;
        if placeholder.as_raw_fd() >= end {
            break;
        }
        placeholders.push(placeholder);
    }
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    command.env("LISTEN_FDS", named.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.env_remove("LISTEN_PID").env_remove("LISTEN_PIDFDID");
    let program = Exec::new(arguments(&command)?, environment(&command)?, fds);
    rights::exec_in_child(&mut command, program);
    command.spawn()
}

/// `sendmsg(SCM_RIGHTS)`—Sends listeners to the process at the other end of a Unix socket, which calls [`receive`].
///
/// They stay open and registered in this process. See [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use std::os::unix::net::UnixStream;
/// use epoll_acceptor::handover;
///
/// # fn main() -> std::io::Result<()> {
/// // The old process.
/// let (old, new) = UnixStream::pair()?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// handover::send(&old, &[("http", &listener)])?;
///
/// // The new process.
/// let received = handover::receive(&new)?.take_tcp("http")?;
/// handover::confirm(&new)?;
///
/// // The old process.
/// handover::await_confirmation(&old)?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// drop(listener); // The connection stays in the queue.
///
/// // The new process.
/// received.accept()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) as for [`spawn`]; `ETOOMANYREFS` if this user's descriptors in
/// flight exceed `RLIMIT_NOFILE`; otherwise the error of the stream, such as `EAGAIN` if it is non-blocking and full.
#[doc(alias = "SCM_RIGHTS")]
pub fn send<F: AsFd>(mut stream: &UnixStream, listeners: &[(&str, F)]) -> io::Result<()> {
    let named = check(listeners)?;
    let names = named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(":");
    let header = Header { count: named.len(), names: names.len() }.to_bytes();
    let fds: Vec<BorrowedFd<'_>> = named.iter().map(|(_, fd)| *fd).collect();
    let sent = loop {
        match rights::send_rights(stream.as_fd(), &header, &fds) {
            Err(errno) if errno.number() == libc::EINTR => {}
            sent => break sent?,
        }
    };
    // The first byte carried the descriptors; the rest of the header follows without them.
    stream.write_all(&header[sent..])?;
    stream.write_all(names.as_bytes())
}

/// `recvmsg(SCM_RIGHTS)`—Receives the listeners of one [`send`], owned and close-on-exec.
///
/// Blocks until they arrive or the read timeout of the stream expires (`set_read_timeout`). See
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html), and [`send`] for an example.
///
/// # Errors
///
/// * [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the peer has closed the stream;
/// * [`InvalidData`](io::ErrorKind::InvalidData) if it has sent anything other than [`send`] does;
/// * [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) if this process has too few free descriptors. The received ones
///   are closed; the sender still has all of them and can send them again;
/// * otherwise the error of the stream.
#[doc(alias = "SCM_RIGHTS")]
pub fn receive(mut stream: &UnixStream) -> io::Result<Listeners> {
    let mut bytes = [0; Header::SIZE];
    let message = loop {
        match rights::receive_rights(stream.as_fd(), &mut bytes) {
            Err(errno) if errno.number() == libc::EINTR => {}
            message => break message?,
        }
    };
    if message.length == 0 {
        let why = "the peer closed the stream before it sent listeners";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    let header = Header::from_bytes(&bytes[..message.length])
        .filter(|header| header.names <= NAMES_MAX)
        .filter(|header| header.count == message.fds.len() || message.truncated)
        .ok_or_else(protocol_error)?;
    // Reads the names of a truncated message too, so that the sender can send again on this stream.
    let mut names = vec![0; header.names];
    stream.read_exact(&mut names)?;
    if message.truncated {
        let why = "too few free descriptors to receive the listeners: raise RLIMIT_NOFILE, then have them sent again";
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
    }
    let names = String::from_utf8(names).map_err(|_| protocol_error())?;
    let names: Vec<&str> = names.split(':').collect();
    if names.len() != header.count || !names.iter().all(|name| is_name(name)) {
        return Err(protocol_error());
    }
    Ok(Listeners::new(names.into_iter().map(str::to_owned).zip(message.fds)))
}

/// Confirms to the old process that this one serves the listeners.
///
/// Call it after the acceptors are registered. See [`send`] for an example.
///
/// # Errors
///
/// The error of the stream.
pub fn confirm(mut stream: &UnixStream) -> io::Result<()> {
    stream.write_all(CONFIRMED)
}

/// Waits until the new process calls [`confirm`].
///
/// Blocks until then or until the read timeout of the stream expires (`set_read_timeout`). See [`send`] for an example.
///
/// # Errors
///
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the new process has exited,
/// [`InvalidData`](io::ErrorKind::InvalidData) if it sent anything else, or the error of the stream. On any error,
/// continue to serve, and start another process.
#[must_use = "the old process may stop only after a confirmation"]
pub fn await_confirmation(mut stream: &UnixStream) -> io::Result<()> {
    let mut bytes = [0; CONFIRMED.len()];
    stream.read_exact(&mut bytes)?;
    if bytes == *CONFIRMED { Ok(()) } else { Err(protocol_error()) }
}

const CONFIRMED: &[u8; 8] = b"received";
const NAME_MAX: usize = 255;
const NAMES_MAX: usize = RIGHTS_MAX * (NAME_MAX + 1);

/// The header of a message: the number of descriptors, and the length of the names in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    count: usize,
    names: usize,
}

impl Header {
    const MAGIC: &[u8; 8] = b"handover";
    const SIZE: usize = 16;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(Self::MAGIC);
        for (at, number) in [(8, self.count), (12, self.names)] {
            // `check` bounds both.
            bytes[at..at + 4].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let number = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            usize::try_from(u32::from_le_bytes(number)).ok()
        };
        if !bytes.starts_with(Self::MAGIC) {
            return None;
        }
        Some(Self { count: number(8)?, names: number(12)? })
    }
}

/// Checks the number, the names and the kind of the listeners.
fn check<'a, F: AsFd>(listeners: &'a [(&'a str, F)]) -> io::Result<Vec<(&'a str, BorrowedFd<'a>)>> {
    let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    if listeners.is_empty() {
        return invalid("a handover needs at least one listener".into());
    }
    if listeners.len() > RIGHTS_MAX {
        return invalid(format!("a handover takes at most {RIGHTS_MAX} listeners, not {}", listeners.len()));
    }
    for (name, fd) in listeners {
        if !is_name(name) {
            return invalid(format!(
                "the name {name:?} must have 1 to {NAME_MAX} printable ASCII characters and no colon"
            ));
        }
        if !sys::is_listening(fd.as_fd()) {
            return invalid(format!("the descriptor named {name:?} is not listening: call listen(2) first"));
        }
    }
    Ok(listeners.iter().map(|(name, fd)| (*name, fd.as_fd())).collect())
}

/// Returns `true` if `LISTEN_FDNAMES` can contain the name (systemd.socket(5), `FileDescriptorName=`).
fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
}

fn protocol_error() -> io::Error {
    let message =
        "the peer does not speak this handover protocol: use the same version of this crate on both sides";
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn arguments(command: &Command) -> io::Result<Vec<CString>> {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|argument| c_string(argument.to_owned())).collect()
}

/// Returns the environment of this process with the changes of the command.
fn environment(command: &Command) -> io::Result<Vec<CString>> {
    let mut all: BTreeMap<OsString, OsString> = env::vars_os().collect();
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.insert(name.to_owned(), value.to_owned()),
            None => all.remove(name),
        };
    }
    all.into_iter()
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            c_string(variable)
        })
        .collect()
}

fn c_string(string: OsString) -> io::Result<CString> {
    CString::new(string.into_vec()).map_err(|_| {
        let message = "arguments and variables must not contain a NUL byte";
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}
