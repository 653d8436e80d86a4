//! Listeners from one process to another, without a moment at which nobody listens (feature `handover`).
//!
//! A listening socket lives, with its accept queue, as long as any process has a descriptor of it. So a server is
//! replaced without a client noticing by giving the *same socket* to the new process before the old one lets go:
//!
//! * at the start of the new program, as systemd does it: [`spawn`] and [`inherited`];
//! * at any time, over a Unix socket: [`send`] and [`receive`] (`SCM_RIGHTS`).
//!
//! # The order of steps
//!
//! 1. The old process hands over, and **goes on accepting**.
//! 2. The new one receives, registers its acceptor, and [`confirm`]s.
//! 3. The old one hears that ([`await_confirmation`]), and deregisters: [`Control::stop`] and a pass, or
//!    [`into_listener`].
//! 4. It closes its listener, which resets nobody since the socket lives on, ends the connections that it has, and
//!    ends.
//!
//! If the new process fails before step 3, the old one has lost nothing.
//!
//! [The guide](crate::guide::handover) tells all of it, and how a service ends.
//!
//! # Traps
//!
//! ## The old process deregisters before it sleeps
//!
//! Closing a descriptor does not end its registration as long as the socket lives, and it lives on in the new
//! process. An epoll that was left behind is told of clients that nobody there accepts, for ever; exclusively
//! registered, it swallows the events of the new process.
//!
//! ## Never wind down a socket that was handed over
//!
//! [`wind_down`](crate::linux::EpollAcceptor::wind_down) acts on the socket, which is now the new process's too. It is for the
//! end of a service, and not for its handing over.
//!
//! ## Whoever can connect is given the listeners
//!
//! A Unix socket on which a server hands over stands where only its owner can reach it.
//!
//! ## `O_NONBLOCK` is shared
//!
//! It belongs to the socket. Whoever clears it makes the accepts of the other process block.
//!
//! [`Control::stop`]: crate::drain::Control::stop
//! [`into_listener`]: crate::linux::EpollAcceptor::into_listener

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
use super::sys::rights::{self, FIRST_INHERITED, Image, RIGHTS_MAX};

pub use listeners::{Listeners, Received};

/// The listeners that this program was started with: by a service manager, or by [`spawn`].
///
/// Reads `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` as sd_listen_fds(3) defines them. Without them, or if they are
/// for another process, there are none, and the program opens its own. A descriptor without a name is `"unknown"`.
/// All of them are close-on-exec from now on.
///
/// Call it once, early: until then whatever this program executes inherits them too. The variables stay, since a
/// program with threads cannot remove them safely; a child that is executed is not the process that they name.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if the variables make no sense or do not fit together,
/// `EBADF` if there are fewer descriptors than they say, [`AlreadyExists`](io::ErrorKind::AlreadyExists) the second
/// time.
///
/// # Examples
///
/// ```
/// use std::net::TcpListener;
/// use epoll_acceptor::handover;
///
/// # fn main() -> std::io::Result<()> {
/// let mut listeners = handover::from_env()?;
/// let listener = match listeners.is_empty() {
///     true => TcpListener::bind("127.0.0.1:0")?,
///     false => listeners.take_tcp("http")?,
/// };
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [sd_listen_fds(3)](https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html)
#[doc(alias = "sd_listen_fds")]
#[doc(alias = "LISTEN_FDS")]
pub fn from_env() -> io::Result<Listeners> {
    Ok(Listeners::new(rights::take_inherited()?))
}

/// Starts a program that inherits these listeners, by the protocol that [`inherited`] reads.
///
/// In the child, and in no other program that this process starts meanwhile, the descriptors from 3 on are the
/// listeners, in this order; `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID` tell of them. Here nothing changes: no
/// close-on-exec flag is cleared. What the child finds at these numbers otherwise is lost to it.
///
/// ## What of the command is not seen
///
/// `env_clear` and `arg0` cannot be asked of a [`Command`]. The child has this process's environment with the
/// command's additions and removals, and its program as argument 0, which is looked up in this process's `PATH`.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for no listener at all, more than 253, a name that LISTEN_FDNAMES
/// cannot hold (empty, longer than 255, a colon, not printable ASCII), a descriptor that does not listen, or a zero
/// byte in an argument; otherwise whatever [`Command::spawn`] fails with.
///
/// # Examples
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
/// # References
///
/// [sd_listen_fds(3)](https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html)
#[doc(alias = "LISTEN_PID")]
pub fn spawn<F: AsFd>(mut command: Command, listeners: &[(&str, F)]) -> io::Result<Child> {
    let named = check(listeners)?;
    let end = FIRST_INHERITED + i32::try_from(named.len()).unwrap_or(i32::MAX - FIRST_INHERITED);
    // Out of the way, so that moving one into place does not overwrite the next.
    let fds = named.iter().map(|(_, fd)| rights::duplicate_from(*fd, end)).collect::<Result<Vec<_>, _>>()?;
    // Whatever `spawn` opens for itself must not come to lie where the child puts the listeners.
    let mut placeholders = Vec::new();
    for (_, fd) in named.iter().cycle() {
        let placeholder = rights::duplicate_from(*fd, FIRST_INHERITED)?;
        if placeholder.as_raw_fd() >= end {
            break;
        }
        placeholders.push(placeholder);
    }
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    command.env("LISTEN_FDS", named.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.env_remove("LISTEN_PID").env_remove("LISTEN_PIDFDID");
    let image = Image::new(arguments(&command)?, environment(&command)?, fds);
    rights::replace_image(&mut command, image);
    command.spawn()
}

/// `sendmsg(SCM_RIGHTS)`—Hands listeners over to whoever is at the other end of a Unix socket.
///
/// They stay open and registered here. The other side calls [`receive`].
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) as for [`spawn`]; `ETOOMANYREFS` if more descriptors are under way
/// than this user may have open; whatever the stream fails with: one that is non-blocking may be full.
///
/// # Examples
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use std::os::unix::net::UnixStream;
/// use epoll_acceptor::handover;
///
/// # fn main() -> std::io::Result<()> {
/// let (old, new) = UnixStream::pair()?; // in two processes
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// handover::send(&old, &[("http", &listener)])?;
///
/// let taken_over = handover::receive(&new)?.take_tcp("http")?;
/// handover::confirm(&new)?;
///
/// handover::await_confirmation(&old)?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// drop(listener); // and the client is still queued
/// taken_over.accept()?;
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)
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
    // The descriptors go with the first byte; the kernel does not split so few.
    stream.write_all(&header[sent..])?;
    stream.write_all(names.as_bytes())
}

/// `recvmsg(SCM_RIGHTS)`—Receives the listeners that [`send`] hands over: owned, close-on-exec, by their names.
///
/// Waits for them for as long as the stream does: `set_read_timeout` bounds it.
///
/// # Errors
///
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the other side has closed the stream;
/// [`InvalidData`](io::ErrorKind::InvalidData) if it has sent something else;
/// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) if this process has not enough descriptors left: what could be
/// received is closed again, and the sender still has them all and may send them again. Otherwise whatever the stream
/// fails with.
///
/// # Examples
///
/// Those of [`send`].
///
/// # References
///
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)
#[doc(alias = "SCM_RIGHTS")]
pub fn receive(mut stream: &UnixStream) -> io::Result<Listeners> {
    let mut bytes = [0; Header::SIZE];
    let came = loop {
        match rights::receive_rights(stream.as_fd(), &mut bytes) {
            Err(errno) if errno.number() == libc::EINTR => {}
            came => break came?,
        }
    };
    if came.length == 0 {
        let why = "the other side closed the stream and handed nothing over";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    let header = Header::from_bytes(&bytes[..came.length])
        .filter(|header| header.names <= NAMES_MAX)
        .filter(|header| header.count == came.fds.len() || came.truncated)
        .ok_or_else(foreign)?;
    // Read in any case, so that the stream is good for another try.
    let mut names = vec![0; header.names];
    stream.read_exact(&mut names)?;
    if came.truncated {
        let why = "this process has too few descriptors left to receive the listeners: raise RLIMIT_NOFILE \
                   and ask for them again";
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
    }
    let names = String::from_utf8(names).map_err(|_| foreign())?;
    let names: Vec<&str> = names.split(':').collect();
    if names.len() != header.count || !names.iter().all(|name| is_name(name)) {
        return Err(foreign());
    }
    Ok(Listeners::new(names.into_iter().map(str::to_owned).zip(came.fds)))
}

/// Tells the old process that its listeners are served here now: after the acceptors have been registered. The example
/// is [`send`]'s.
///
/// # Errors
///
/// Whatever the stream fails with.
pub fn confirm(mut stream: &UnixStream) -> io::Result<()> {
    stream.write_all(CONFIRMED)
}

/// Waits until the new process has [`confirm`]ed, for as long as the stream does (`set_read_timeout`). The example is
/// [`send`]'s.
///
/// # Errors
///
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the new process has gone,
/// [`InvalidData`](io::ErrorKind::InvalidData) if it has said something else, or whatever the stream fails with. In
/// every case: go on serving, and try again with another one.
#[must_use = "only after a confirmation may the old process stop"]
pub fn await_confirmation(mut stream: &UnixStream) -> io::Result<()> {
    let mut heard = [0; CONFIRMED.len()];
    stream.read_exact(&mut heard)?;
    if heard == *CONFIRMED { Ok(()) } else { Err(foreign()) }
}

const CONFIRMED: &[u8; 8] = b"received";
const NAME_MAX: usize = 255;
const NAMES_MAX: usize = RIGHTS_MAX * (NAME_MAX + 1);

/// What stands before the names: so many descriptors, and so many bytes of names.
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
            // Both are bounded by far less, and checked.
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

/// What may be handed over: some listeners, not too many, with names that the protocol can hold.
fn check<'a, F: AsFd>(listeners: &'a [(&'a str, F)]) -> io::Result<Vec<(&'a str, BorrowedFd<'a>)>> {
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if listeners.is_empty() {
        return invalid("nothing would be handed over: give at least one listener".into());
    }
    if listeners.len() > RIGHTS_MAX {
        return invalid(format!(
            "{} listeners are too many: hand over at most {RIGHTS_MAX}",
            listeners.len()
        ));
    }
    for (name, fd) in listeners {
        if !is_name(name) {
            return invalid(format!(
                "{name:?} is no name for a listener: take 1 to {NAME_MAX} printable ASCII characters and no colon"
            ));
        }
        if !sys::is_listening(fd.as_fd()) {
            return invalid(format!(
                "the descriptor named {name:?} does not listen: call listen on it first"
            ));
        }
    }
    Ok(listeners.iter().map(|(name, fd)| (*name, fd.as_fd())).collect())
}

/// A name as LISTEN_FDNAMES can hold it (systemd.socket(5), FileDescriptorName=).
fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
}

fn foreign() -> io::Error {
    let why =
        "the other side does not speak the hand-over protocol of this crate: let both ends be of one version";
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn arguments(command: &Command) -> io::Result<Vec<CString>> {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|argument| c_string(argument.to_owned())).collect()
}

/// This process's environment, with the command's changes.
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
        let why = "an argument or a variable holds a zero byte: leave it out";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}
