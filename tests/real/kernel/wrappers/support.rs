//! Test helpers: sockets of every kind, bounded waits, child processes that run one test.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use epoll_acceptor::{Epoll, Event, Events, Interest, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A timeout that no passing test reaches, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A non-blocking listener and its address.
pub(crate) struct Server {
    pub(crate) socket: Socket,
    pub(crate) address: SockAddr,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Mptcp,
    UnixStream,
    UnixSeqpacket,
}

pub(crate) const KINDS: [Kind; 5] =
    [Kind::Tcp4, Kind::Tcp6, Kind::Mptcp, Kind::UnixStream, Kind::UnixSeqpacket];

impl Kind {
    pub(crate) fn socket(self) -> io::Result<Socket> {
        match self {
            Self::Tcp4 => Socket::new(Domain::IPV4, Type::STREAM, None),
            Self::Tcp6 => Socket::new(Domain::IPV6, Type::STREAM, None),
            Self::Mptcp => Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)),
            Self::UnixStream => Socket::new(Domain::UNIX, Type::STREAM, None),
            Self::UnixSeqpacket => Socket::new(Domain::UNIX, Type::SEQPACKET, None),
        }
    }

    fn any_address(self) -> SockAddr {
        match self {
            Self::Tcp4 | Self::Mptcp => {
                SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())
            }
            Self::Tcp6 => SockAddr::from("[::1]:0".parse::<std::net::SocketAddr>().unwrap()),
            Self::UnixStream | Self::UnixSeqpacket => {
                let name = format!("\0{}", unique_name());
                SockAddr::unix(name).unwrap()
            }
        }
    }

    /// Returns `None`, with a message on stderr, if the kernel does not support the kind.
    pub(crate) fn listen(self, backlog: i32) -> Option<Server> {
        let listen = || {
            let socket = self.socket()?;
            socket.bind(&self.any_address())?;
            socket.listen(backlog)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Server { socket, address, kind: self })
        };
        match listen() {
            Ok(server) => Some(server),
            Err(error) => {
                let error: io::Error = error;
                eprintln!("SKIPPED {self:?}: {error}");
                None
            }
        }
    }

    pub(crate) fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6 | Self::Mptcp)
    }
}

impl Server {
    pub(crate) fn connect(&self) -> Socket {
        let client = self.kind.socket().unwrap();
        client.connect(&self.address).unwrap();
        client
    }
}

/// Opens a listener of every kind that the kernel supports.
pub(crate) fn servers(backlog: i32) -> impl Iterator<Item = Server> {
    KINDS.into_iter().filter_map(move |kind| kind.listen(backlog))
}

/// Returns a name that no other test uses, in this or another process.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("epoll-acceptor-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

pub(crate) fn connect(listener: &TcpListener) -> TcpStream {
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

/// Creates an epoll with `listener` registered as token 1, and an event buffer.
pub(crate) fn watching(listener: &TcpListener, interest: Interest) -> (Epoll, Events) {
    let epoll = Epoll::new().unwrap();
    epoll.add(listener, Token(1), interest).unwrap();
    (epoll, Events::with_capacity(16).unwrap())
}

/// Returns the events that are ready now, without blocking, and empties the buffer.
pub(crate) fn ready_now(epoll: &Epoll, events: &mut Events) -> Vec<Event> {
    epoll.wait(events, Some(Duration::ZERO)).unwrap();
    events.collect()
}

/// Returns the tokens of the events that are ready now.
pub(crate) fn tokens_now(epoll: &Epoll, events: &mut Events) -> Vec<u64> {
    ready_now(epoll, events).iter().map(|event| event.token().0).collect()
}

/// Polls a condition until it is true.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the registrations of an epoll from /proc/PID/fdinfo: descriptor and mask.
pub(crate) fn registrations(epoll: &Epoll) -> Vec<(i32, u32)> {
    let path = format!("/proc/self/fdinfo/{}", epoll.as_fd().as_raw_fd());
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("tfd:")).then(|| {
            let fd = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next(), Some("events:"));
            (fd, u32::from_str_radix(words.next().unwrap(), 16).unwrap())
        })
    };
    std::fs::read_to_string(path).unwrap().lines().filter_map(parse).collect()
}

pub(crate) fn is_nonblocking(fd: &impl AsFd) -> bool {
    // SAFETY: F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) };
    assert_ne!(flags, -1);
    flags & libc::O_NONBLOCK != 0
}

pub(crate) fn is_cloexec(fd: &impl AsFd) -> bool {
    // SAFETY: F_GETFD takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFD) };
    assert_ne!(flags, -1);
    flags & libc::FD_CLOEXEC != 0
}

/// Returns a command that runs only this test in a child process; `None` in the child.
pub(crate) fn child(test: &str) -> Option<Command> {
    if env::var_os(CHILD).is_some_and(|name| name == test) {
        return None;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// Runs the test in a child process and propagates its failure. Returns `true` in the parent, `false` in the child.
pub(crate) fn done_in_child(test: &str) -> bool {
    let Some(mut command) = child(test) else { return false };
    assert_success(&command.output().unwrap());
    true
}

pub(crate) fn assert_success(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "the child failed: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

const CHILD: &str = "EPOLL_ACCEPTOR_TEST_CHILD";

/// The action of a seccomp filter.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Return this errno.
    Fail(i32),
    /// Kill the process.
    Kill,
}

/// Installs a seccomp filter for these system calls of the calling thread. It cannot be removed: use it in child
/// processes only.
pub(crate) fn filter(calls: &[i64], verdict: Verdict) {
    let action = match verdict {
        Verdict::Fail(errno) => libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap(),
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    let statement =
        |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k };
    // The first word of `struct seccomp_data` is the number of the system call.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in calls {
        let code = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap();
        program.push(libc::sock_filter { code, jt: 0, jf: 1, k: u32::try_from(*call).unwrap() });
        program.push(statement(libc::BPF_RET | libc::BPF_K, action));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes no pointer; PR_SET_SECCOMP reads a `sock_fprog`, which is live, as is the
    // program that it points to.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0, "seccomp");
    }
}

/// Returns every system call that waits on an epoll.
pub(crate) fn waiting_calls() -> Vec<i64> {
    vec![
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
    ]
}

/// Creates an eventfd, readable or not.
pub(crate) fn eventfd(readable: bool) -> OwnedFd {
    let flags = nix::sys::eventfd::EfdFlags::EFD_NONBLOCK | nix::sys::eventfd::EfdFlags::EFD_CLOEXEC;
    nix::sys::eventfd::EventFd::from_value_and_flags(u32::from(readable), flags).unwrap().into()
}
